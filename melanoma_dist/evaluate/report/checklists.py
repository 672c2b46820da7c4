"""The items of two reporting guidelines, and which facts of a run answer them.

CLAIM: Tejani et al. 2024, "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update". TRIPOD+AI:
Collins et al. 2024, "TRIPOD+AI statement: updated guidance for reporting clinical prediction models". Item names are
shortened; the third field names the answer that ``card`` gives, empty where only the authors can.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One item of a guideline."""

    number: str
    name: str
    answer: str = ""


CLAIM = (
    Item("1", "Identification as a study of AI methodology, with its technology", "technology"),
    Item("2", "Summary of design, methods, results and conclusions"),
    Item("3", "Scientific and clinical background, intended use and role"),
    Item("4", "Study aims, objectives and hypotheses"),
    Item("5", "Prospective or retrospective study", "retrospective"),
    Item("6", "Study goal"),
    Item("7", "Data sources", "sources"),
    Item("8", "Inclusion and exclusion criteria", "excluded"),
    Item("9", "Data preprocessing", "preprocessing"),
    Item("10", "Selection of data subsets", "subsets"),
    Item("11", "De-identification methods", "deidentified"),
    Item("12", "How missing data were handled", "missing"),
    Item("13", "Image acquisition protocol"),
    Item("14", "Definition of the methods that gave the reference standard"),
    Item("15", "Rationale for choosing the reference standard"),
    Item("16", "Source of reference standard annotations", "annotations"),
    Item("17", "Annotation of the test set", "test_annotations"),
    Item("18", "Variability between and within annotators"),
    Item("19", "How data were assigned to partitions", "partitions"),
    Item("20", "Level at which partitions are disjoint", "disjoint"),
    Item("21", "Intended sample size"),
    Item("22", "Detailed description of the model", "model"),
    Item("23", "Software libraries, frameworks and packages", "libraries"),
    Item("24", "Initialization of model parameters", "initialization"),
    Item("25", "Details of the training", "training"),
    Item("26", "Method of selecting the final model", "selection"),
    Item("27", "Ensembling techniques", "ensemble"),
    Item("28", "Metrics of model performance", "metrics"),
    Item("29", "Statistical measures of significance and uncertainty", "uncertainty"),
    Item("30", "Robustness or sensitivity analysis", "robustness"),
    Item("31", "Methods for explainability or interpretability", "explainability"),
    Item("32", "Evaluation on internal data", "internal"),
    Item("33", "Testing on external data", "external"),
    Item("34", "Clinical trial registration"),
    Item("35", "Numbers of patients or examinations included and excluded", "counts"),
    Item("36", "Demographic and clinical characteristics of cases in each partition", "characteristics"),
    Item("37", "Performance metrics and statistical uncertainty", "performance"),
    Item("38", "Estimates of diagnostic performance and their precision", "diagnostic"),
    Item("39", "Failure analysis of incorrect results", "failures"),
    Item("40", "Study limitations", "limits"),
    Item("41", "Implications for practice, intended use and clinical role"),
    Item("42", "Reference to the full protocol or to technical details", "details"),
    Item("43", "Availability of software, trained model and data", "availability"),
    Item("44", "Funding and the role of funders"),
)

TRIPOD_AI = (
    Item("1", "Title", "technology"),
    Item("2", "Abstract"),
    Item("3a", "Background: healthcare context and rationale"),
    Item("3b", "Background: target population and intended users"),
    Item("3c", "Background: known health inequalities"),
    Item("4", "Objectives"),
    Item("5a", "Data: sources", "sources"),
    Item("5b", "Data: dates of collection"),
    Item("6a", "Participants: setting and centres"),
    Item("6b", "Participants: eligibility", "excluded"),
    Item("6c", "Participants: treatments received"),
    Item("7", "Data preparation", "preprocessing"),
    Item("8a", "Outcome: definition"),
    Item("8b", "Outcome: qualifications of assessors"),
    Item("8c", "Outcome: blinding of its assessment"),
    Item("9a", "Predictors: choice", "predictors"),
    Item("9b", "Predictors: definition and measurement"),
    Item("9c", "Predictors: qualifications of assessors"),
    Item("10", "Sample size", "counts"),
    Item("11", "Missing data", "missing"),
    Item("12a", "Analysis: how the data were used", "partitions"),
    Item("12b", "Analysis: handling of predictors", "preprocessing"),
    Item("12c", "Analysis: type of model, building steps, internal validation", "model"),
    Item("12d", "Analysis: heterogeneity across clusters", "robustness"),
    Item("12e", "Analysis: measures and plots of performance", "metrics"),
    Item("12f", "Analysis: model updating", "updating"),
    Item("12g", "Analysis: how predictions were calculated for the evaluation", "ensemble"),
    Item("13", "Class imbalance", "imbalance"),
    Item("14", "Fairness", "fairness"),
    Item("15", "Model output", "output"),
    Item("16", "Differences between training and evaluation data", "differences"),
    Item("17", "Ethical approval"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Protocol"),
    Item("18d", "Registration"),
    Item("18e", "Data sharing", "availability"),
    Item("18f", "Code sharing", "details"),
    Item("19", "Patient and public involvement"),
    Item("20a", "Results: flow of participants", "counts"),
    Item("20b", "Results: characteristics of participants", "characteristics"),
    Item("20c", "Results: comparison with the development data", "differences"),
    Item("21", "Results: participants and outcome events in each analysis", "events"),
    Item("22", "Results: specification of the model", "availability"),
    Item("23a", "Results: performance with confidence intervals", "performance"),
    Item("23b", "Results: heterogeneity of performance across clusters", "fairness"),
    Item("24", "Results: model updating", "updating"),
    Item("25", "Interpretation"),
    Item("26", "Limitations", "limits"),
    Item("27a", "Usability: poor or unavailable input", "input"),
    Item("27b", "Usability: interaction and expertise of users"),
    Item("27c", "Usability: next steps of research"),
)
