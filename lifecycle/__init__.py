"""The composition root: settings, command line, pipelines, the loop and the demo."""
