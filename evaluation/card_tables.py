"""The model card's tables: which figures of a report are shown, under which words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .reports import FURTHER_HEAD, Report

#: How far an AUC must lie above what the words alone reach to be called better.
MARGIN = 0.05


def figure(value: Any) -> str:
    """A figure as the card prints it: three decimals, thousands with commas; a dash where it could not be formed."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def look_up(figures: Mapping[str, Any], path: str) -> Any:
    """The figure at `"arms.both.success"`. Raises `KeyError` with the whole path where there is none."""
    value: Any = figures
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(path)
        value = value[part]
    return value


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def shown_command(report: Report) -> list[str]:
    """Lines that say what printed the figures, on which data and how many faces."""
    images = report.figures.get("images")
    faces = f"{figure(images)} faces; " if images is not None else ""
    return ["```bash", report.command, "```", "", f"{faces}data: {report.data_description or 'see the command'}.", ""]


@dataclass(frozen=True)
class Section:
    """
    One part of the results.

    Args:
        name: of its report; reports whose names begin with it and an underscore belong to it too.
        rows: report's figures → rows of the table.
        optional: whether it is no loss where there is no such report.
    """

    title: str
    name: str
    heads: tuple[str, ...]
    rows: Callable[[Mapping[str, Any]], list[list[str]]]
    optional: bool = False

    def found(self, reports: Mapping[str, Report]) -> list[str]:
        """Names of its reports."""
        return [name for name in reports if name == self.name or name.startswith(f"{self.name}_")]

    def lines(self, reports: Mapping[str, Report]) -> Iterator[str]:
        """Heading, and command and table of each report; nothing where there is none."""
        names = self.found(reports)
        if names:
            yield from (f"### {self.title}", "")
        for name in names:
            yield from shown_command(reports[name])
            try:
                rows = self.rows(reports[name].figures)
            except KeyError as error:
                raise ValueError(f"{name}.json lacks the figure {error.args[0]!r}, which the card shows") from error
            yield from (*table(self.heads, rows), "")


def _list(**shown: str) -> Callable[[Mapping[str, Any]], list[list[str]]]:
    """Rows of one figure each: path (dots written as two underscores) → words."""
    paths = {path.replace("__", "."): words for path, words in shown.items()}
    return lambda figures: [[words, figure(look_up(figures, path))] for path, words in paths.items()]


def _arms(figures: Mapping[str, Any]) -> list[list[str]]:
    names = {"none": "no guidance", "cfg": "classifier-free", "itm": "matching", "both": "both (default)"}
    edit = figures["edit"].replace("_", " ")
    if figures.get("draw"):
        edit, names["both"] = f"{edit}, drawn", "both"
    return [
        [
            edit,
            names.get(name, name),
            figure(look_up(figures, "lacking")),
            figure(look_up(arm, "success")),
            _interval(arm.get("gain_over_none")),
            *(figure(look_up(arm, column)) for column in ("side_effect", "lpips", "seconds")),
        ]
        for name, arm in look_up(figures, "arms").items()
    ]


def _by_critic(figures: Mapping[str, Any]) -> list[list[str]]:
    names = {
        "confidence": "by confidence alone",
        "critic": "tokens drawn again by the critic",
        "real": "the critic in the guidance",
        "three": "best of three, the critic among the judges",
    }
    columns = ("success", "side_effect", "match_score", "realness", "frechet", "seconds")
    edit = figures["edit"].replace("_", " ")
    photos = ["–"] * len(columns)
    photos[columns.index("frechet")] = figure(look_up(figures, "photo_frechet"))
    drawn = [
        [edit, names.get(name, name), *(figure(look_up(arm, column)) for column in columns)]
        for name, arm in look_up(figures, "arms").items()
    ]
    return [[edit, "the photos, not edited", *photos], *drawn]


def _interval(gain: Mapping[str, float] | None) -> str:
    return "" if gain is None else f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def _ways(figures: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            hole.replace("_", " "),
            way.replace("_", " "),
            figure(look_up(entry, "psnr")),
            figure(look_up(entry, "lpips")),
        ]
        for hole, ways in figures.items()
        if isinstance(ways, Mapping)
        for way, entry in ways.items()
    ]


def _nested(*columns: str) -> Callable[[Mapping[str, Any]], list[list[str]]]:
    """One row for each nested mapping."""
    return lambda figures: [
        [name.replace("_", " "), *(figure(look_up(entry, column)) for column in columns)]
        for name, entry in figures.items()
        if isinstance(entry, Mapping)
    ]


#: Sections about classification heads.
RECOGNIZING = ("attributes", "expression", "head")
#: Figures of groups that are no accuracy of a label.
GROUP_FIGURES = {"age_error": "mean error of the age, years"}

_RECOGNITION = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy, of the labels with at least 20 faces of either kind",
    "balanced_labels": "number of these labels",
    "f1": "F1, mean over the labels",
}

#: The parts of "Results" in their order.
SECTIONS = (
    Section(
        "Image tokenizer",
        "tokenizer",
        ("figure", "value"),
        _list(
            psnr="PSNR of encoded and decoded faces, dB",
            lpips="LPIPS",
            l1="mean absolute difference, of 1",
            codes_used="codes that occur",
            perplexity="perplexity of the codes",
        ),
    ),
    Section(
        "Image-text matching and masked modelling",
        "matching",
        ("figure", "value"),
        _list(
            auc="AUC, true captions against those of other faces",
            words_only_auc="the same from the words alone, without looking",
            auc_counterfactual="AUC against captions with one attribute flipped",
            words_only_auc_counterfactual="the same from the words alone",
            auc_by_attribute="AUC of single attributes between faces that have them and faces that do not, mean",
            code_loss_15="loss of 15 % masked codes, nats",
            code_loss_50="loss of 50 % masked codes, nats",
            word_loss_15="loss of 15 % masked words, nats",
            mouth_loss="loss of the codes of the mouth, the rest given, nats",
        ),
    ),
    Section(
        "Drawn tokens told from those of photos",
        "critic",
        ("figure", "value"),
        _list(
            auc="AUC of single tokens, all grids",
            auc_guided="of grids drawn with guidance by matching",
            auc_free="of grids drawn without",
            auc_foreign="of grids that are in part another face's",
            grids="grids",
        ),
        optional=True,
    ),
    Section("Face attributes", "attributes", ("figure", "value"), _list(**_RECOGNITION, ap="average precision, mean")),
    Section("Facial expression", "expression", ("figure", "value"), _list(**_RECOGNITION)),
    Section("Further heads", "head", ("figure", "value"), _list(**_RECOGNITION), optional=True),
    Section(
        "Editing, judged by another network",
        "editing",
        (
            "edit",
            "guidance",
            "lacking it",
            "success of these",
            "gain over none (95 %)",
            "side effect",
            "LPIPS",
            "seconds",
        ),
        _arms,
    ),
    Section(
        "Edits that are drawn, with and without the critic",
        "realism",
        ("edit", "drawn", "success", "side effect", "match", "realness", "Fréchet distance to real faces", "seconds"),
        _by_critic,
        optional=True,
    ),
    Section(
        "Sharpness of edited areas, of the photo's own",
        "sharpness",
        ("edit", "photos", "ratio of the Laplacian's variance, median", "lower quartile"),
        _nested("edited", "ratio", "low"),
    ),
    Section(
        "The edge of edits: difference to the photo in the outermost 8 pixels",
        "seam",
        ("edit", "photos", "ΔE", "LPIPS"),
        _nested("edited", "delta_e", "lpips"),
    ),
    Section(
        "What edits change besides: shares of all change",
        "area",
        (
            "edit",
            "photos",
            "on ears",
            "on the background",
            "on clothes",
            "overlap of a new hair colour with hair (IoU)",
        ),
        _nested("edited", "ears", "background", "clothes", "hair_iou"),
    ),
    Section(
        "Faces from text, judged by another network",
        "generation",
        ("figure", "value"),
        _list(
            agreement="share of the mentioned attributes that the judge sees",
            agreement_moved="the same with another face's prompt",
            lpips_between_seeds="LPIPS between two seeds",
            seconds="seconds a face",
        ),
    ),
    Section(
        "Captions",
        "caption",
        ("captions", "precision", "recall", "F1", "F1 of another face's captions"),
        _nested("precision", "recall", "f1", "f1_moved"),
    ),
    Section("Inpainting", "inpaint", ("hole", "filled by", "PSNR, dB", "LPIPS"), _ways),
    Section("Under a mouth mask", "unmask", ("hole", "filled by", "PSNR, dB", "LPIPS"), _ways),
    Section(
        'Where `region="auto"` looks',
        "saliency",
        ("prompt", "region", "its share of the grid", "share of the gradient in it", "with the contrary caption"),
        _nested("region", "area", "share", "share_with_source"),
    ),
)


def group_lines(reports: Mapping[str, Report]) -> Iterator[str]:
    """Accuracy by group, and the gap between the best and the worst group of each kind."""
    if "groups" not in reports:
        yield from ("Not measured for this checkpoint (`groups.json`).", "")
        return
    report = reports["groups"]
    labels = [name for name in report.figures if name not in ("accuracy", "images", "groups")]
    words = {label: GROUP_FIGURES.get(label, f"accuracy of {label}") for label in labels}
    yield from shown_command(report)
    groups = look_up(report.figures, "groups")
    rows = [
        [kind, value, figure(entry["images"]), *(figure(entry[label]) for label in labels)]
        for kind, values in groups.items()
        for value, entry in values.items()
    ]
    yield from (*table(("", "group", "faces", *words.values()), rows), "")
    for label in labels:
        gaps = []
        for kind, values in groups.items():
            known = {value: entry[label] for value, entry in values.items() if entry[label] is not None}
            if len(known) > 1:
                most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
                gaps.append(f"{kind} {known[most] - known[least]:.3f} ({most} to {least})")
        if gaps:
            yield f"- Largest differences in the {words[label]}: {', '.join(gaps)}."
    yield ""


def calibration_lines(reports: Mapping[str, Report]) -> Iterator[str]:
    """Calibration errors of the heads that were measured."""
    sections = [section for section in SECTIONS if section.name in RECOGNIZING]
    heads = [name for section in sections for name in section.found(reports)]
    if not heads:
        yield from ("Not measured for this checkpoint (`attributes.json`, `expression.json`).", "")
        return
    rows = [
        [
            _head_words(name),
            figure(reports[name].figures.get("ece_as_stored")),
            figure(reports[name].figures.get("ece")),
        ]
        for name in heads
    ]
    yield from ("Expected calibration error (15 bins of equal mass), by the commands above:", "")
    fitted = "with a temperature fitted on other faces"
    yield from (*table(("head", "scores as the pipelines give them", fitted), rows), "")


def _head_words(report: str) -> str:
    """The head that a report is about, and the data set where it is measured on several."""
    head, _, data = report.removeprefix(FURTHER_HEAD).partition("_")
    if report.startswith(FURTHER_HEAD) or not data:
        return f"`{report.removeprefix(FURTHER_HEAD)}`"
    return f"`{head}`, {data}"


def findings(reports: Mapping[str, Report]) -> Iterator[str]:
    """What the figures say against the checkpoint, in words: the limits that a reader must not have to work out."""
    matching = reports["matching"].figures if "matching" in reports else {}
    if {"auc", "words_only_auc"} <= set(matching) and matching["auc"] < matching["words_only_auc"] + MARGIN:
        yield (
            "The matching head hardly tells true captions from false ones "
            f"(AUC {figure(matching['auc'])}; the words alone {figure(matching['words_only_auc'])}): guidance by it "
            '(`itm_guidance`), the ranking of candidates, `strength` and `region="auto"` carry little information.'
        )
    for name in (name for name in reports if name.startswith("editing")):
        arms = reports[name].figures.get("arms", {})
        gain = arms.get("both", {}).get("gain_over_none")
        edit = reports[name].figures.get("edit", name).replace("_", " ")
        if gain is not None and gain["low"] <= 0:
            yield f"Edit “{edit}”: no gain of guidance over none has been shown (95 % interval {_interval(gain)})."
    generation = reports["generation"].figures if "generation" in reports else {}
    if {"agreement", "agreement_moved"} <= set(generation) and (
        generation["agreement"] < generation["agreement_moved"] + MARGIN
    ):
        yield (
            f"Faces made from text follow their prompts little: {figure(generation['agreement'])} of the mentioned "
            f"attributes are seen, {figure(generation['agreement_moved'])} with the prompt of another face."
        )
