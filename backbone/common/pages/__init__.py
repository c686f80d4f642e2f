"""Parts of HTML pages that need nothing beside them: style, charts and tables as text."""
