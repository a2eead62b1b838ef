"""The notebook: magics, completion, progress, display. Thin over the Session."""
