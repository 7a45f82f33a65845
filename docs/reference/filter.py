#!/usr/bin/env python3
"""Makes headers and pages readable for Doxygen, which knows /// and ///< but not plain //.

A comment above a declaration documents it; one behind a declaration documents that one, together
with the further lines below it; the first block of a file documents the file. Comments inside of
function bodies are nobody's business but the reader's of the source.
"""
import re
import sys

DECLARES = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b[^;=()]*$")


def translate(lines):
    scopes = []  # True: declarations stand here; False: statements; None: the library's own
    head = True  # nothing but comments so far
    trailing = None  # column of the comment behind the last declaration
    statement = ""  # since the last ; { or }
    out = []
    for line in lines:
        text = line.strip()
        column = len(line) - len(line.lstrip())
        declarative = all(scopes)
        hidden = None in scopes
        if text.startswith("//"):
            words = text[2:]
            if head:
                out.append(("//! @file\n" if not out else "") + "//!" + words)
            elif hidden or not declarative or words.startswith(" ----"):
                out.append("")
            elif trailing is not None and column >= trailing - 1 and column > 2:
                out.append(" " * column + "///<" + words)
            else:
                trailing = None
                out.append(" " * column + "///" + words)
            continue
        head = head and not text
        code, behind, words = line, "", ""
        match = re.search(r"(?<!:)//(?!/)", line)
        if match and line[: match.start()].count('"') % 2 == 0:
            code, words = line[: match.start()], line[match.end() :]
            behind = "///<" + words if declarative and not code.lstrip().startswith(("#", "}")) else ""
        trailing = match.start() if behind else None
        visible = code.rstrip() + ("  " + behind if behind else "")
        out.append("" if hidden and not text.startswith("#") else visible)
        for char in re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])\'', "", code):
            if char == "{":
                own = re.search(r"\bnamespace (\w+::)*detail\s*$", statement)
                scopes.append(None if own else bool(DECLARES.search(statement)))
                statement = ""
            elif char == "}":
                if scopes:
                    scopes.pop()
                statement = ""
            elif char == ";":
                statement = ""
            else:
                statement += char
        if None in scopes and not hidden:
            out[-1] = ""  # what opens the library's own is its own
        statement += " "
        if text.startswith("#"):
            statement = ""
    return out


def anchors(lines, page):
    """Gives each heading of a page the name that links elsewhere on these pages use for it."""
    fenced = False
    out = []
    for line in lines:
        if line.startswith("```"):
            fenced = not fenced
        heading = None if fenced else re.match(r"(#+) (.*)$", line)
        if heading:
            name = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[2]).lower()
            name = re.sub(r"[^\w -]", "", name).replace(" ", "-")
            line += " {#%s}" % (name if heading[1] != "#" else "page-" + page)
        out.append(line)
    return out


if __name__ == "__main__":
    path = sys.argv[1]
    with open(path, encoding="utf-8") as source:
        text = source.read().splitlines()
    is_page = path.endswith(".md")
    page = path.rsplit("/", 1)[-1].removesuffix(".md")
    print("\n".join(anchors(text, page) if is_page else translate(text)))
