"""What a prompt asks for: its words → rows of the table of edits."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

from .blending import Transfer
from .colour_words import COLOUR_WORDS
from .edits import EDITS, Edit
from .ordinary_words import ORDINARY_WORDS

try:
    from rapidfuzz import process
    from rapidfuzz.distance import OSA
except ImportError:  # code that was loaded without the package: words must then be spelled as in the table
    process = None  # type: ignore[assignment]


class UnknownEditError(ValueError):
    """
    A prompt that asks for nothing that the table of edits has; the message names the nearest edits.

    Args:
        nearest: the phrases of these.
    """

    def __init__(self, message: str, nearest: Sequence[str] = ()):
        super().__init__(message)
        self.nearest = tuple(nearest)


@dataclass(frozen=True)
class EditIntent:
    """One edit that a prompt asks for.

    Args:
        edit: its row of the table.
        detail: what the prompt says of the mouth beside an expression ("smiling, mouth closed").
        comparative: whether more of it is asked for ("older", "a bigger smile"), so that having some of it is no
            reason to stop.
        colour: of the thing, one of [`Edit.colours`]; empty where the prompt names none.
    """

    edit: Edit
    detail: Edit | None = None
    comparative: bool = False
    colour: str = ""

    @property
    def phrase(self) -> str:
        """What was asked for, in the words of the table."""
        return self._with_detail(self.edit.phrase)

    @property
    def told(self) -> str:
        """What the model is told."""
        return self._with_detail(self.edit.told or self.edit.phrase)

    def _with_detail(self, words: str) -> str:
        return words if self.detail is None else f"{words}, {self.detail.phrase}"

    @property
    def transfer(self) -> Transfer | None:
        """How the face changes where nothing is drawn, see [`Edit`], in the colour that was asked for."""
        return self.edit.colours.get(self.colour, self.edit.transfer)

    @property
    def regions(self) -> tuple[str, ...]:
        """Keys of `regions.REGIONS` that are redrawn. A smile has the mouth in it, and its chin is put back."""
        if self.detail is None or "smile" in self.edit.regions:
            return self.edit.regions
        return tuple(dict.fromkeys(self.edit.regions + self.detail.regions))


@dataclass(frozen=True)
class PromptReading:
    """
    Args:
        intents: the edits in the order of the prompt, at least one.
        ignored: what else the prompt says, as far as it is not grammar.
        corrected: (as written, as read) of words that were taken for misspelled ones.
    """

    intents: tuple[EditIntent, ...]
    ignored: tuple[str, ...] = ()
    corrected: tuple[tuple[str, str], ...] = ()

    @property
    def remark(self) -> str | None:
        """
        What a user should be told about how the prompt was read, in one line; None where there is nothing to tell.
        """
        told = " and ".join(f'"{intent.phrase}"' for intent in self.intents)
        parts = [f'read "{written}" as "{read}"' for written, read in self.corrected]
        if self.ignored:
            more = ", …" if len(self.ignored) > _LISTED else ""
            parts.append(f"ignored {', '.join(repr(word) for word in self.ignored[:_LISTED])}{more}")
        return f"the edit is {told}: {'; '.join(parts)}" if parts else None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an some ein eine einen einem einer un une des una unas unos")
#: Grammar: says nothing of an edit.
FILLERS = _words(
    "the her his hers him he she it its they them their me my i you your we us this that these those "
    "be is are was am been being will would could can should shall may might must please kindly just now then so "
    "look looks looking like appear appears seem seems expression face person people someone somebody woman man girl boy lady guy "
    "gentleman women men photo picture image portrait what if about how of for in at by there here lets "
    "der die das den dem er sie es ihr ihm ihn ihre ihren sein seine soll sollte bitte mach mache machen haben ist frau mann gesicht "
    "kann kannst konntest lass lasse lassen aussehen bild foto "
    "le la les l de du d elle il lui fais faire rends rendre fait est femme homme visage s j qu se sa son ses il plait vous te peux pouvez tu "
    "el los las que ella haz hacer hazla hazlo por favor ponle este esta mujer hombre cara rostro se lo puedes "
    "的 让 她 他 我 人 使 把 给 着 请 在 了 一个 这个 女人 男人"
)
#: Says how much: counts where a wording has it, and is no news elsewhere.
DEGREES = _words(
    "very really quite slightly bit little much lot lots light lightly subtle strong strongly full broad wide widely nice beautiful "
    "big huge small long short thick thin real good great pair years year again also too as completely totally fully all any "
    "head color colour sehr etwas mehr plus tres muy mas un 一副 一顶 一些 一点"
)
MORE = _words("more even bigger larger stronger further mehr plus mas 更")
#: Begins what is wanted, and so ends what is not.
VERBS = _words(
    "add put give gives make makes making made with wear wears wearing grow growing turn turning change changing let have has having "
    "get gets getting apply want show showing try take taking dye dyed paint set on replace swap mit trage tragen tragend trug hinzufugen "
    "fuge hinzu gib setz setze auf nimm farbe farben avec donne donnez teins "
    "ajoute ajouter mets mettre porte porter portant con pon poner anade anadir lleva llevar agrega agregar 戴 戴上 戴着 加上 添加 加 变成 变 留 有"
)
NOT = _words(
    "no not without never non dont doesnt isnt arent shouldnt wont less fewer kein keine keinen nicht ohne sans ne n pas aucun aucune sin ni neither 没有 不 不要 无 不戴 没 别"
)
REMOVE = _words(
    "remove removes removing removed delete erase lose drop rid off away stop quit wipe clear shave entferne entfernen weg ab enleve "
    "enlever retire retirer supprime supprimer quita quitar quitale elimina eliminar 去掉 移除 摘掉 摘下 取下 去除 除去 脱掉 取掉"
)
#: What may stand behind the thing: "take the glasses off".
BEHIND = _words("off away weg ab entfernen nicht pas")
KEEP = _words(
    "except keep keeps keeping leave leaving retain preserve behalte behalten garde garder manten mantener 保留"
)
INSTEAD = "instead"
WEAK_SEPARATORS = _words("and or nor & + / und oder et ou y o 和 与 并 或")
EITHER_OR = _words("or nor oder ou o 或")
SEPARATORS = _words(", ; . ! ? : but aber mais pero 但")
SHAVE = "shave"
#: What denying other expressions comes to.
NEUTRAL = "neutral"
#: Kinds of edits that bring something, which may be one of several that a negating word is about.
THINGS = ("add", "make-up")

_GRAMMAR = (
    ARTICLES
    | FILLERS
    | DEGREES
    | MORE
    | VERBS
    | NOT
    | REMOVE
    | KEEP
    | WEAK_SEPARATORS
    | SEPARATORS
    | {INSTEAD, "from", "to", "into"}
)
_GERMAN = _words("ein eine einen er sie der die das und ihr mit ohne")
_CJK = r"[\u3400-\u9fff]"
_JAPANESE = re.compile(r"[\u3040-\u30ff]")
_TOKEN = re.compile(rf"{_CJK}+|[^\W_]+|[,;.!?:&+/。]")
_NOT_SHORT = re.compile(r"\b\w+n't\b")
_UN, _LESS = re.compile(r"\bun[-\u2010]\b"), re.compile(r"\b(\w+)[-\u2010](?:less|free)\b")
_INSTEAD_OF = re.compile(
    r"\b(?:instead of|rather than|in place of|anstelle von|anstatt|statt|au lieu d[e']|en vez de|en lugar de)(?!\w)"
)
_ALL_BUT = re.compile(r"\b(?:all|everything) but (the|his|her|my|their|your)\b")
# Letters of a prompt and words left over that a message shows; words of a prompt that are looked at for typing errors.
_SHOWN, _LISTED, _CORRECTED = 80, 8, 200


def read_prompt(text: str) -> PromptReading:
    """
    Reads what a prompt asks for: imperatives, questions, descriptions, comparatives, negation, several edits, words
    with a letter wrong, and simple German, French, Spanish and Chinese.

    Raises:
        UnknownEditError: it asks for no edit of the table.
        ValueError: no text, no valid Unicode, or edits that contradict each other.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'prompt must say what the face should be, for example "smiling"; got {text!r}')
    shown = repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"prompt {shown} is not valid Unicode") from error
    tokens = _tokens(text)
    fill = _fill(tokens)
    if fill is not None:
        return PromptReading((EditIntent(fill),))
    corrected = _corrections(tokens)
    mentions, unknown = _Scan([corrected.get(token, token) for token in tokens]).run()
    intents, not_done = _intents(mentions, shown)
    if not intents:
        nearest = nearest_edits(tokens)
        near = " or ".join(f'"{phrase}"' for phrase in nearest)
        raise UnknownEditError(
            f"prompt {shown} has no word of an edit that is known; did you mean {near}? "
            "gptface edits prints the list; strict=False passes the words on as they are",
            nearest,
        )
    own = {word for intent in intents for wording in intent.edit.wordings for word in _tokens(wording)}
    ignored = tuple(dict.fromkeys([word for word in unknown if word not in own] + not_done))
    return PromptReading(intents, ignored, tuple(corrected.items()))


def without_edits(text: str, names: Collection[str]) -> str:
    """
    A prompt in lower case without the words that ask for some edits, and without what led to these: "a man wearing a
    big hat" without `hat` is "a man". Misspelled words are those that [`read_prompt`] takes them for.

    Args:
        names: of edits.
    """
    said = _tokens(text)
    corrected = _corrections(said)
    tokens = [corrected.get(token, token) for token in said]
    kept: list[str] = []
    start = 0
    while start < len(tokens):
        end, edit = _wording_at(tokens, start)
        if edit is not None and edit.name in names:
            for leading in (ARTICLES | DEGREES | COLOUR_WORDS.keys(), VERBS | WEAK_SEPARATORS | SEPARATORS):
                while kept and kept[-1] in leading:
                    kept.pop()
        else:
            kept += tokens[start:end]
        start = end
    return " ".join(kept)


def nearest_edits(tokens: Sequence[str], count: int = 3) -> list[str]:
    """Phrases of the edits that share most words with a text; of those that share as many, the ones that work best."""
    order = {"good": 0, "fair": 1, "experimental": 2}
    said = set(tokens) - _GRAMMAR

    def shared(edit: Edit) -> int:
        return len(said & {word for wording in edit.wordings for word in _tokens(wording)})

    edits = [edit for edit in EDITS.values() if edit.kind != "fill"]
    ranked = sorted(edits, key=lambda edit: (-shared(edit), order[edit.quality]))
    return [edit.phrase for edit in ranked[:count]]


def _fold(text: str) -> str:
    """Lower case without accents and invisible characters."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        letter for letter in letters if not unicodedata.combining(letter) and unicodedata.category(letter) != "Cf"
    )


def _tokens(text: str) -> list[str]:
    """
    Folded words and separators; "don't" and "un-" are "not", "-less" is "no", and Chinese is cut into the words that
    the table has.
    """
    folded = _NOT_SHORT.sub(" not ", _fold(text).replace("\u2019", "'"))
    folded = _LESS.sub(r" no \1 ", _UN.sub(" not ", folded))
    folded = _INSTEAD_OF.sub(f" {INSTEAD} ", _ALL_BUT.sub(r" except \1 ", folded)).replace("。", " . ")
    found: list[str] = _TOKEN.findall(folded)
    if not _JAPANESE.search(folded):
        found = [word for token in found for word in (_chinese().findall(token) if re.match(_CJK, token) else [token])]
    if "hat" in found and _GERMAN & set(found):
        return [token for token in found if token != "hat"]  # "sie hat blonde Haare"
    return found


@lru_cache
def _chinese() -> re.Pattern[str]:
    """The Chinese words of the table and of the grammar, the longest first, or what is between them."""
    said = [wording for edit in EDITS.values() for wording in edit.translations.get("zh", ())]
    known_words = _GRAMMAR | COLOUR_WORDS.keys()
    words = sorted({*said, *(word for word in known_words if re.match(_CJK, word))}, key=len, reverse=True)
    known = "|".join(map(re.escape, words))
    return re.compile(rf"{known}|(?:(?!{known}){_CJK})+")


def _content(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(token for token in tokens if token not in FILLERS and token not in ARTICLES and token != "to")


@lru_cache
def _phrases() -> dict[tuple[str, ...], Edit]:
    """Words of a wording without its grammar → the edit."""
    found: dict[tuple[str, ...], Edit] = {}
    for edit in EDITS.values():
        for wording in edit.wordings if edit.kind != "fill" else ():
            words = _content(_tokens(wording))
            if not words or (len(words) == 1 and words[0] in _GRAMMAR):
                raise ValueError(f"{wording!r} of the edit {edit.name!r} has no word of its own")
            if found.setdefault(words, edit) is not edit:
                raise ValueError(f"{wording!r} is said of both {found[words].name!r} and {edit.name!r}")
    return found


@lru_cache
def _beginnings() -> tuple[frozenset[str], int]:
    """The words that wordings begin with, and how many words the longest may take with its grammar."""
    return frozenset(words[0] for words in _phrases()), 2 * max(map(len, _phrases()))


def _wording_at(tokens: Sequence[str], start: int) -> tuple[int, Edit | None]:
    """Where the longest wording of the table that begins at a word ends, and its edit; else the next word and None."""
    first_words, longest = _beginnings()
    reach = longest if tokens[start] in first_words else 0
    for end in range(min(len(tokens), start + reach), start, -1):
        edit = _phrases().get(_content(tokens[start:end]))
        if edit is not None and tokens[end - 1] not in FILLERS | ARTICLES | {"to"}:
            return end, edit
    return start + 1, None


@lru_cache
def _vocabulary() -> tuple[dict[str, None], dict[str, None]]:
    """
    All words that mean something in the order of the table: the English ones, and those of other languages and of
    grammar.
    """
    english = [word for edit in EDITS.values() for said in (edit.phrase, *edit.synonyms) for word in _tokens(said)]
    english = [word for word in english if word not in _GRAMMAR]
    others = [word for words in _phrases() for word in words] + sorted(_GRAMMAR | COLOUR_WORDS.keys())
    return dict.fromkeys(english), dict.fromkeys(word for word in others if word not in english)


def _corrections(tokens: Sequence[str]) -> dict[str, str]:
    """Misspelled words → those that they stand for."""
    return {
        token: better
        for token in islice(dict.fromkeys(tokens), _CORRECTED)
        if (better := _correction(token)) is not None
    }


def _correction(word: str) -> str | None:
    """The word that a misspelled one stands for; what is a word itself is not misspelled."""
    return None if word in ORDINARY_WORDS else nearest_word(word)


@lru_cache(maxsize=4096)
def nearest_word(word: str) -> str | None:
    """
    The word of the table or of grammar that is meant by one that is neither, if any: one letter wrong, missing, too
    much or swapped, or two in nine and more; the first one right. Short words of grammar and of other languages are
    too near to too many English ones.
    """
    if process is None or len(word) < 4 or not word.isalpha():
        return None
    english, others = _vocabulary()
    if word in english or word in others:
        return None
    for known, bound, least in ((english, 1, 4), (others, 1, 6), (english, 2, 9)):
        near = [each for each in known if len(each) >= least and each[0] == word[0] and each != SHAVE]
        best = process.extractOne(
            word, near if len(word) >= least - 1 else (), scorer=OSA.distance, score_cutoff=bound
        )
        if best is not None:
            return best[0]
    return None


def _fill(tokens: list[str]) -> Edit | None:
    """The row that asks for nothing new, where the whole text is one of its wordings."""
    said = [token for token in tokens if token not in ARTICLES and token != "the"]
    for edit in EDITS.values():
        if edit.kind == "fill" and any(
            said == [token for token in _tokens(wording) if token not in ARTICLES and token != "the"]
            for wording in edit.wordings
        ):
            return edit
    return None


@dataclass
class _Mention:
    """A row that was found in clause number `clause`, and what becomes of it."""

    edit: Edit
    clause: int
    comparative: bool
    joined: bool = False  # by "and" or "or" to the one before
    negated: bool = False
    kept: bool = False
    colour: str = ""


@dataclass
class _Scope:
    """
    What a negating word reaches: the next thing, and what is joined to that by "and", "or" or, of verbs, a comma.
    """

    how: str = ""
    spent: bool = False
    joined: str = ""
    article: bool = False
    of_things: bool = False

    def holds(self, edit: Edit) -> bool:
        if not self.how or not self.spent:
            return bool(self.how)
        thing = edit.kind in THINGS
        if self.joined in EITHER_OR:
            return True
        if self.joined in WEAK_SEPARATORS:
            return thing and (self.how != "not" or not self.article)
        return self.joined == "," and thing and self.of_things and self.how != "not"  # not in "stop smiling, red lips"


@dataclass
class _Scan:
    """One pass over the words of a prompt."""

    tokens: list[str]
    mentions: list[_Mention] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    clause: int = 0
    scope: _Scope = field(default_factory=_Scope)
    behind: bool = False  # the negating word may belong to what stood before it
    shaves: bool = False
    since_verb: int = 0  # mentions before the last verb
    joined: bool = False  # "and" or "or" stands between the last mention and the next
    colour: str = ""  # the word for one that stands before a thing, or alone behind one

    def __post_init__(self) -> None:
        self.asks_for_more = bool(MORE & set(self.tokens))

    def run(self) -> tuple[list[_Mention], list[str]]:
        for words, edit in self._spans():
            if edit is not None:
                self._mention(edit, words)
            else:
                self._grammar(words[0])
        self._end_clause()
        return self.mentions, self.unknown

    def _spans(self) -> Iterator[tuple[list[str], Edit | None]]:
        """The longest wordings of the table, and the single words between them."""
        tokens = [token for token in self.tokens if token not in FILLERS]
        start = 0
        while start < len(tokens):
            end, edit = _wording_at(tokens, start)
            if edit is None and start and (end == len(tokens) or tokens[end] not in _beginnings()[0]):
                edit = _phrases().get((tokens[start - 1], tokens[start]))  # "turn the blond hair black"
            yield tokens[start:end], edit
            start = end

    def _mention(self, edit: Edit, words: list[str]) -> None:
        comparative = any(word.endswith("er") and word in _comparatives() for word in words)
        mention = _Mention(edit, self.clause, comparative or self.asks_for_more, self.joined)
        self.joined = False
        if self.colour and COLOUR_WORDS[self.colour] in edit.colours:
            mention.colour = COLOUR_WORDS[self.colour]
        elif self.colour and self.scope.how != INSTEAD:
            self.unknown.append(self.colour)
        self.colour = ""
        if self.scope.holds(edit):
            mention.kept = self.scope.how in ("keep", INSTEAD)
            mention.negated = not mention.kept
            self.scope.spent, self.scope.of_things = True, edit.kind in THINGS
        elif self.scope.spent:
            self.scope = _Scope()
        self.scope.joined, self.scope.article = "", False
        self.mentions.append(mention)

    def _grammar(self, word: str) -> None:
        scope = self.scope
        if word in SEPARATORS or word in WEAK_SEPARATORS:
            self._colour_behind()
        if word in SEPARATORS:
            if word == "," and scope.how not in ("", "not"):
                self._settle()
                scope.joined = ","
            else:
                self._end_clause()
            self.clause += 1
        elif word in WEAK_SEPARATORS:
            self._settle()
            scope.joined, self.joined = word, True
        elif word in ARTICLES:
            scope.article = True
        elif word in REMOVE:
            # "don't remove the glasses"
            self.scope = _Scope("keep" if scope.how == "not" and not scope.spent else "remove")
            self.behind, self.shaves = word in BEHIND, self.shaves or word == SHAVE
        elif word in NOT:
            self.scope, self.behind = _Scope("not"), word in BEHIND
        elif word in KEEP:
            self.scope = _Scope("keep")
        elif word in (INSTEAD, "from"):
            self.scope = _Scope(INSTEAD)
        elif word == "to":  # "from black to blond"
            self.scope = _Scope() if scope.how == INSTEAD else scope
        elif word == "into":
            # "turn the frown into a smile"
            self.mentions = [mention for mention in self.mentions if mention.clause != self.clause]
            self.since_verb, self.scope = len(self.mentions), _Scope()
        elif word in VERBS:
            self._colour_behind()
            self.since_verb, self.joined = len(self.mentions), False
            if scope.spent and scope.joined not in EITHER_OR:
                self.scope = _Scope()
        elif word in COLOUR_WORDS:
            self._colour_behind()
            self.colour = word
        elif word not in DEGREES and word not in MORE:
            self._colour_behind()
            self.unknown += [word] if scope.how != INSTEAD else []

    def _colour_behind(self) -> None:
        """A colour that no thing follows is that of the one before it ("a hat in red"), or means nothing."""
        word, self.colour = self.colour, ""
        if not word:
            return
        thing = self.mentions[-1] if self.mentions and self.mentions[-1].clause == self.clause else None
        if thing is not None and not thing.colour and COLOUR_WORDS[word] in thing.edit.colours:
            thing.colour = COLOUR_WORDS[word]
        elif self.scope.how != INSTEAD:
            self.unknown.append(word)

    def _settle(self) -> None:
        """A negating word behind the things ("take the glasses off") is about those since the last verb."""
        if self.behind and self.scope.how and not self.scope.spent:
            for mention in self.mentions[self.since_verb :]:
                mention.negated = mention.clause == self.clause or mention.negated
            self.scope = _Scope() if self.mentions[self.since_verb :] else self.scope
        self.behind = False

    def _end_clause(self) -> None:
        self._colour_behind()
        self._settle()
        if self.shaves and not any(mention.clause == self.clause for mention in self.mentions):
            self.mentions.append(_Mention(EDITS["no_beard"], self.clause, False))
        self.scope, self.shaves = _Scope(), False


@lru_cache
def _comparatives() -> frozenset[str]:
    """Words of the table that compare, such as "older"."""
    plain = {"another", "silver", "laughter", "senior", "anger"}
    return frozenset(word for words in _phrases() for word in words if word.endswith("er")) - plain


@dataclass(frozen=True)
class _Wish:
    """An edit that was asked for in a clause, maybe by denying another one."""

    intent: EditIntent
    clause: int
    denied: Edit | None = None

    def gives_way_to(self, other: "_Wish") -> bool:
        """Whether it only says what is not wanted, and the other one is something else: "not sad, smiling"."""
        return self.denied is not None and self.intent.edit.name == NEUTRAL and other.intent.edit is not self.denied


def _intents(mentions: list[_Mention], shown: str) -> tuple[tuple[EditIntent, ...], list[str]]:
    """The edits of the mentions, and what was said of a thing of which the table has no opposite."""
    chosen: list[_Wish] = []
    not_done: list[str] = []
    for mention in mentions:
        edit = mention.edit
        if mention.kept:
            continue
        if mention.negated:
            if edit.opposite is None:
                not_done.append(f"not {edit.phrase}")
                continue
            edit = EDITS[edit.opposite]
        wish = _Wish(
            EditIntent(edit, comparative=mention.comparative, colour=mention.colour if edit.colours else ""),
            mention.clause,
            mention.edit if mention.negated else None,
        )
        for index, earlier in enumerate(chosen):
            if not _excludes(earlier.intent.edit, edit):
                continue
            agree = _agree(earlier.intent.edit, edit)
            if wish.gives_way_to(earlier):
                break
            apart = earlier.clause != wish.clause or mention.joined
            if apart and not agree and not earlier.gives_way_to(wish):
                raise ValueError(
                    f'prompt {shown} asks for both "{earlier.intent.edit.phrase}" and "{edit.phrase}": choose one'
                )
            # of "change the black hair to blond" the last counts, of "happy, smiling" the one that says more
            if not (agree and edit.name in ("smiling", "not_smiling")):
                chosen[index] = wish
            break
        else:
            chosen.append(wish)
    intents = [wish.intent for wish in chosen]
    mouth = next((intent for intent in intents if intent.edit.group == "mouth"), None)
    face = next((intent for intent in intents if intent.edit.group == "expression"), None)
    if mouth is not None and face is not None:
        intents = [replace(each, detail=mouth.edit) if each is face else each for each in intents if each is not mouth]
    return tuple(intents), not_done


def _excludes(first: Edit, second: Edit) -> bool:
    return first is second or first.opposite == second.name or (bool(first.group) and first.group == second.group)


def _agree(first: Edit, second: Edit) -> bool:
    """Whether one face may have both: who is happy smiles, and who is sad does not."""
    smiles = [edit.name in ("smiling", "happy") for edit in (first, second)]
    return first is second or (first.group == second.group == "expression" and smiles[0] == smiles[1])
