"""A page as one file: read from a disk, without a network."""

from __future__ import annotations

import json
from html import escape
from string import Template
from typing import Any

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
<script>$script</script>
</body>
</html>
""")


def document(title: str, body: str, *, style: str, script: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML that stands below the title.
    """
    return _PAGE.substitute(title=escape(title), style=style, body=body, script=script)


def json_for_script(value: Any) -> str:
    """Return JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
