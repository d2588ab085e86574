"""``audioldm app``: a page in the browser to generate and to edit on.   The only room that imports gradio."""
