"""Annotations for GitHub Actions: one line each, whatever the text and the path hold."""

from __future__ import annotations

from stackctl.cli.github import format_annotation


def test_a_workflow_command_is_one_line_with_its_text_escaped() -> None:
    text = "100 %: a\nb: why, so\r\nDROP TABLE t;"
    assert format_annotation("warning", text, file="a,b:c/d.sql", line=3, column=4, title="drop-table") == (
        "::warning file=a%2Cb%3Ac/d.sql,line=3,col=4,title=drop-table::100 %25: a%0Ab: why, so%0D%0ADROP TABLE t;"
    )
    assert format_annotation("notice", "a: b", file="x", line=1, title="t") == "::notice file=x,line=1,title=t::a: b"
