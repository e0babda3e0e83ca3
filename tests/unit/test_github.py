"""Annotations for GitHub Actions: one line each, whatever the text and the path hold."""

from __future__ import annotations

from pathlib import Path

from stackctl.cli.github import format_annotation


def test_a_workflow_command_is_one_line_with_its_text_escaped() -> None:
    text = "100 %: a\nb: why, so\r\nDROP TABLE t;"
    assert format_annotation("warning", text, file=Path("a,b:c/d.sql"), line=3, column=4, title="drop-table") == (
        "::warning file=a%2Cb%3Ac/d.sql,line=3,col=4,title=drop-table::100 %25: a%0Ab: why, so%0D%0ADROP TABLE t;\n"
    )
    assert format_annotation("notice", "a: b", file=Path("x"), line=1, title="t", safe_way="c:\nd") == (
        "::notice file=x,line=1,title=t::a: b%0Asafe way:%0Ac:%0Ad\n"
    )


def test_values_start_no_command_of_their_own_and_say_nothing_to_a_terminal() -> None:
    for evil in ("x\n::set-output name=a::b", "x\r\n::stop-commands::y", "\x1b[2J\x9b2J\u202e\u2028"):
        (line,) = format_annotation("error", evil, file=Path(evil), line=1, title=evil, safe_way=evil).splitlines()
        assert line.isprintable()
        assert line.startswith(
            "::error file=x%" if evil.startswith("x") else "::error file=\\x1b[2J\\x9b2J\\u202e\\u2028,"
        )
        assert line.count("::") <= 2 + 2 * evil.count("::")
