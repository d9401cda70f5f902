"""
Ordinary English words a letter or two away from a word of the table of edits: no typing errors.

Made by `lab/ordinary_words.py` of SCOWL's small list of English words, see LICENSES/SCOWL.txt.
"""

_WORDS = """
    aced ached acing admonished ages alters amazes angel angler aped aping appeal appeals arced archer arches
    arcked argues awed awing axed axing babe back bade badness bags bake bale baled balk ball balm band bands
    bani bank banks bans barb bard bards bared barge bark barn bars base baud bead beaded beads bear bears
    beheaded bigots blanch bland blander blare blaster blend blends blind blinder blinds blink block blood bloods
    blown blows blunder board boarded boards boded bold boldness bond bonds boned booed bore bores bowed bows
    boxed brawn bred brews bridle brow brunt brush brushing bugger bung bush bushing busier busy calf calk call
    carved chain chairs chance chancing chanting charge charging checked checks cheeped cheeps cheered cheers
    cheesed chic chid chip chose clack claims clam clan clanging cleat click cloak clone clones closer closet
    closets clove cloves cluck cock coin compete consent contest context convent creeks cribs cried crimes crises
    crock culls curbed curbs curds cured cures curled curry cursed curves dank danker dare darken darn dart
    decreased delegated delimited deplete devout digested digressed discussed disguised disputed disrupted
    distrusted dugout earning earnings erring excerpt eyelashes fail fails fall farmer farther feat fell fells
    fences file fills film fine fire firmer flair flown forces former frill fulls gain gains gander garden garter
    gasses gayer giggles ginning gins girder gland glaze glossed glosses glowing goad grab graces gracing grader
    grades grading grain grains gram grapes grassed grasses grater grates grating graven graver graves graving
    gravy grayed grazes grazing grew greyed grid grids grim grinding grinds grip grips grit grits groin groins
    groping groused growling gutting hags hail hailed hails hale haling halts halving hams happiest hared haring
    harts hate hates hating hatred haying hays hazing header heady healed heaped heated heats heave heaved
    heaving heeded heir heirs herded hippy hired hits hiving hold holy home hone hope hose hove huts keeling
    keening kindle lager laps larges lasses leading leafing leaking leaning leaping leasing lenses lessen levees
    levers levies lichen lids lies limps lisp lisps lobes locked locker locket locking looming looping looses
    loosing looting lopes loping lops loser losers loss losses louses loves loving lowing macing mantel marking
    maroon marrow masking mating matron mettle miking mold month mooed moon moor moos moot moth nether neural
    neuter odder offender oftener olden omen omens opener order oven ovens oxen pace page pager pained pall palm
    pals pane panted paper pare pared parked parred parsed parson partied pasted pate patted pave payer pease
    perter pick pile pine pins pint pointed pole ported portent poster potter printed punk race rags raided
    raider raiders raids railed rained raises rake rally rang range rape rare rate rave raved ravel raves raze
    reader readying realty reaming reaping rearing redden regain remain remote remotes render rending repaid
    retail revolved rides rigs rind rinds rink rinks rogues rose roster rostra rouged roughs rouses routes rudder
    ruing rung rungs sacred sadden sades sailed sailing saved scaled scares scarfed scarred scored seared sensor
    shaded shaken shakes shamed shames shaped shapes shared shares shaver shaves shin shoeing shooing shoring
    shot shout shoved shoving shucked shun shunned shunt sick simile similes skein skid skim skip skis skit
    slaved slick sliver slowing slut smite smites smiting smocked smut snared snowing soared socked soiled
    soiling sours sowing spades spared speck specks spews spin stack stared started staved stink stock stocked
    stowing stranger string strung stubby stuck stumble stunted subtly sunned surmised surpassed surplused
    tacking talking taming tanking taping tasking taxing tenth testified thee thinker threw tree trite tuning
    turfing unfailing unset unveiling wades wages waiver waives wakes wanes warier wary wave waved waver wavers
    waxes waxier waxy weaning wearying weaves weaving whale while whine whispers whore whose wisely wives write
    yarn
"""

ORDINARY_WORDS = frozenset(_WORDS.split())
