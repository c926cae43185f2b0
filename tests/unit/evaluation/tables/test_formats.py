import pandas as pd
from tidy_tables import tidy

from lola.evaluation.tables.formats import escape, latex, plain_latex, plain_markdown
from lola.evaluation.tables.lead_times import in_sentence, layout, lead_time_table


def test_latex_has_a_row_per_method_and_marks_the_best():
    table = lead_time_table(tidy([[1, 2, 3], [1, 2, 5]], model="diffusion"), "vrmse", [(1, 20), (21, None)])
    lines = latex(layout(table)).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrr}"
    assert lines[2] == r"method & rate & steps & seeds & 1--20 & 21--end \\"
    assert lines[4].startswith(
        r"Diffusion & 16 & -- & 1 & \textbf{1.500} {\scriptsize (1.500--1.500)} & \textbf{4.000}"
    )
    assert lines[-1] == r"\end{tabular}"


def test_signs_of_latex_are_escaped():
    assert escape("50 % of a_b & c\\d") == r"50 \% of a\_b \& c\textbackslash{}d"
    assert escape("2× {x}") == r"2$\times$ \{x\}"


def test_plain_tables_keep_their_strings():
    table = pd.DataFrame({"method": ["a_b"], "time": ["3 %"]})
    assert plain_markdown(table) == "| method | time |\n| --- | ---: |\n| a_b | 3 % |\n"
    head, *rows = r"\begin{tabular}{lr}", r"\toprule", r"method & time \\", r"\midrule", r"a\_b & 3 \% \\"
    assert plain_latex(table).splitlines() == [head, *rows, r"\bottomrule", r"\end{tabular}"]


def test_names_in_sentences_keep_their_capitals():
    titles = ["Neural solver, Adam", "CRPS ensemble", "Few-step diffusion", "U-Net"]
    assert [in_sentence(each) for each in titles] == [
        "neural solver, Adam", "CRPS ensemble", "few-step diffusion", "U-Net",
    ]  # fmt: skip
