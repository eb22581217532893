"""The pages of the documentation that are made from the code, so that they are never stale.

`scripts/docs_hook.py` adds them when MkDocs builds the site. Every module here turns one part of the code
into Markdown, without MkDocs.
"""
