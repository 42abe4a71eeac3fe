"""What the checklists ask, in our own words, and what of a run would answer it.

Number and content of each item were compared with transcriptions that anyone can read: of CLAIM
2024 (Tejani et al., Radiol Artif Intell 6:e240300) a summary of its 44 items in the public
repository Aperivue/medsci-skills, of GRRAS (Kottner et al. 2011, J Clin Epidemiol 64:96) its table
I as reprinted in BMC Women's Health 13:3 (2013). Metrics Reloaded (Maier-Hein, Reinke et al. 2024,
Nat Methods 21:195) is no list of items: the division into 13 is ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """Something that a run must hold: a kind of piece, its name (with * and ?), and words for it.

    `sentence` looks for words in the Methods, `role` for cases of a role, `reader` for readers
    whose names begin so, `warnings` for what a run tells its readers to mind.
    """

    kind: str
    what: str
    words: str


@dataclass(frozen=True)
class Item:
    """One item: what it asks, what of the run and which words of `study.toml` cover it."""

    number: int
    section: str
    asks: str
    run: tuple[Need, ...] = ()
    author: tuple[str, ...] = ()
    never: str = ""
    """Why the run and the record together still cover a part only."""


def _table(name: str, words: str) -> Need:
    return Need("table", name, words)


def _says(what: str, words: str) -> Need:
    return Need("sentence", what, words)


FLOW = _table("flow", "the flow of cases")
WHO = _table("table1*", "Table 1")
AGREEMENT = _table("agreement", "the table of agreement")
DICE = _table("dice_cv", "the table of Dice")
DICE_EXTERNAL = _table("dice_external", "the table of Dice of external cases")
RUN = Need("file", "run.json", "run.json")
REFERENCE = _says("reference standard", "a sentence on the reference standard")
FURTHER = Need("reader", "reader-", "readings of further readers")
CHOICES = _table("every_choice", "every defensible choice")

CLAIM: tuple[Item, ...] = (
    Item(1, "Title", "The title names the kind of AI", author=("study.title",)),
    Item(2, "Abstract", "A structured abstract: design, methods, results, conclusions",
         author=("study.abstract",)),
    Item(3, "Introduction", "Clinical background, intended use and role of the AI",
         author=("study.background", "study.intended_use")),
    Item(4, "Introduction", "Aims and hypotheses", author=("study.goal", "study.hypothesis")),
    Item(5, "Study design", "Prospective or retrospective", author=("study.design",)),
    Item(6, "Study design", "The goal: making a model, exploring, feasibility, non-inferiority",
         author=("study.goal",)),
    Item(7, "Data", "Where the data come from, and when", (WHO,),
         ("sampling.place", "sampling.from", "sampling.to")),
    Item(8, "Data", "Inclusion and exclusion criteria", (FLOW,),
         ("sampling.inclusion", "sampling.exclusion")),
    Item(9, "Data", "How images were prepared", (_says("resampled in plane", "preparation in the "
         "Methods"), Need("figure", "fig1_*", "the figure of the preparation"))),
    Item(10, "Data", "How parts of the data were chosen, as slices or regions",
         (_says("from a window of", "how slices are chosen"),)),
    Item(11, "Data", "De-identification", author=("study.deidentification",)),
    Item(12, "Data", "How missing data were handled",
         (_says("no value is imputed", "the rule for missing data"),),
         ("sampling.missing_data",)),
    Item(13, "Data", "How images were acquired", (_table("acquisition", "kVp, kernel, dose, "
         "thickness, by the manifest"),), ("study.acquisition",)),
    Item(14, "Reference", "How the reference standard was made", (REFERENCE,),
         ("reference.definition",)),
    Item(15, "Reference", "Why this reference standard", author=("reference.rationale",)),
    Item(16, "Reference", "Who annotated, with which qualification",
         author=("readers.role", "readers.years", "readers.training")),
    Item(17, "Reference", "How the test set was annotated, with which tools",
         author=("reference.test_set", "readers.tool")),
    Item(18, "Reference", "Agreement between and within the annotators, and how disagreement was "
         "resolved", (FURTHER, _table("panel", "readers among each other")),
         ("reference.discrepancies",),
         never="how far each annotator is from themself: a reader study's repeats"),
    Item(19, "Partitions", "How cases were assigned to training, validation, test",
         (_says("Cross-validation had", "the folds"), FLOW)),
    Item(20, "Partitions", "At which level the partitions are disjoint",
         (_says("no patient in two of them", "that no patient is in two parts"),)),
    Item(21, "Test data", "The intended sample size", author=("sampling.size_rationale",)),
    Item(22, "Model", "The model in detail: inputs, layers, outputs",
         (_says("The network scores a slice", "the network in the Methods"),
          Need("figure", "fig2_*", "the figure of the network"))),
    Item(23, "Model", "Software, with versions", (RUN,)),
    Item(24, "Model", "How parameters were initialised", (_says("initialisation", "the "
         "initialisation"),)),
    Item(25, "Training", "Training in detail: augmentation, loss, optimiser, schedule",
         (_says("Training minimised", "the training in the Methods"),
          Need("figure", "learning_curves", "the learning curves"))),
    Item(26, "Training", "How the final model was chosen", (_says("were kept", "which weights "
         "were kept"), _says("lowest validation loss", "which fold reads external cases"))),
    Item(27, "Training", "Ensembles", (_says("the mean of all", "the ensemble"),)),
    Item(28, "Evaluation", "The metrics of performance", (_says("Dice is named", "the metrics"),)),
    Item(29, "Evaluation", "Significance and uncertainty",
         (_says("Intervals are of", "intervals and tests"),)),
    Item(30, "Evaluation", "Robustness or sensitivity", (CHOICES,)),
    Item(31, "Evaluation", "Explainability", author=("study.explainability",)),
    Item(32, "Evaluation", "Performance on internal data", (DICE, AGREEMENT)),
    Item(33, "Evaluation", "Performance on external data", (Need("role", "external", "external "
         "cases"), DICE_EXTERNAL)),
    Item(34, "Evaluation", "Registration of the trial", author=("study.registration",)),
    Item(35, "Results", "Numbers included and excluded, as a flow", (FLOW,)),
    Item(36, "Results", "Demographic and clinical characteristics of each partition", (WHO,)),
    Item(37, "Results", "Performance with its uncertainty", (AGREEMENT, DICE)),
    Item(38, "Results", "Diagnostic accuracy and its precision", (_table("detection", "who sees "
         "it at all"), _table("lesions", "lesion by lesion"))),
    Item(39, "Results", "Failures, and why", (_table("failures", "the cases that failed, and those "
         "read worst"), Need("figure", "case_worst", "the case with the lowest Dice"))),
    Item(40, "Discussion", "Limitations", (Need("warnings", "", "what to mind in this run"),),
         ("study.limitations",)),
    Item(41, "Discussion", "Implications for practice", author=("study.intended_use",)),
    Item(42, "Other", "Where the protocol and technical details are", (RUN,), ("study.protocol",)),
    Item(43, "Other", "Whether software, model and data can be had",
         author=("study.data_availability", "study.code_availability")),
    Item(44, "Other", "Funding, and the funders' role", author=("study.funding",
                                                               "study.role_of_funders")),
)

GRRAS: tuple[Item, ...] = (
    Item(1, "Title", "Title or abstract name agreement as what is studied",
         author=("study.title",)),
    Item(2, "Introduction", "The instrument is named and described",
         (_says("The network scores a slice", "the network in the Methods"),), ("readers.tool",)),
    Item(3, "Introduction", "The population of subjects", (WHO,), ("sampling.inclusion",)),
    Item(4, "Introduction", "The population of raters", author=("readers.role",)),
    Item(5, "Introduction", "What is known of agreement, and why it is studied",
         author=("study.background",)),
    Item(6, "Methods", "How the number of subjects, raters and repeats was chosen",
         author=("sampling.size_rationale",)),
    Item(7, "Methods", "How subjects and raters were sampled", author=("sampling.method",)),
    Item(8, "Methods", "The rating: intervals, order, what was known, blinding",
         author=("readers.blinding", "readers.order", "readers.interval")),
    Item(9, "Methods", "Whether ratings were independent", author=("readers.blinding",)),
    Item(10, "Methods", "The statistical analysis", (_says("Agreement: detection", "the "
         "statistics in the Methods"),)),
    Item(11, "Results", "How many subjects, raters and repeats there were", (FLOW, AGREEMENT)),
    Item(12, "Results", "Characteristics of subjects and raters", (WHO,),
         ("readers.years", "readers.training")),
    Item(13, "Results", "Estimates of agreement with their uncertainty", (AGREEMENT,)),
    Item(14, "Discussion", "What the agreement means in practice",
         author=("margin.rationale", "study.intended_use")),
    Item(15, "Other", "Detailed results", (Need("file", "measurements.csv", "every reading"),)),
)

METRICS_RELOADED: tuple[Item, ...] = (
    Item(1, "Problem", "The task: segmentation of which structures, in which unit of reference",
         (_says("Volumes are voxel counts", "what is measured"),), ("study.goal",)),
    Item(2, "Problem", "What the reference is uncertain of", (FURTHER, _table(
        "dice_between*", "overlap of any two readers")), ("reference.rationale",)),
    Item(3, "Metrics", "An overlap metric for each structure", (DICE,)),
    Item(4, "Metrics", "A boundary metric with its tolerance", (
        _says("normalised surface Dice", "distances of surfaces in the Methods"), DICE)),
    Item(5, "Metrics", "Volumes, where they are what the clinic uses", (AGREEMENT,)),
    Item(6, "Metrics", "Detection of lesions, where there are several", (_table("lesions",
         "lesion by lesion"),)),
    Item(7, "Pitfalls", "Empty masks: what they count, stated", (_says("what an empty mask counts",
         "the rule for empty masks"), _table("detection", "who sees it at all"))),
    Item(8, "Pitfalls", "Small structures: metrics that suffer from size are read beside size",
         (Need("figure", "dice_by*", "Dice by group"), AGREEMENT)),
    Item(9, "Aggregation", "By class, not over classes alone", (DICE,)),
    Item(10, "Aggregation", "Cases of one patient are no independent ones",
         (_says("patients are what is independent", "what is independent"),)),
    Item(11, "Aggregation", "Missing results are counted, not dropped", (_table("failures", "the "
         "cases that failed"), _says("no value is imputed", "the rule for missing data"))),
    Item(12, "Reporting", "Spread and intervals, not means alone", (DICE, AGREEMENT)),
    Item(13, "Reporting", "Single cases are shown, the worst among them", (Need(
        "figure", "case_worst", "the case with the lowest Dice"),)),
)
