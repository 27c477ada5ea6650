"""`pufferjax bench`: how fast simulators, training and ops are on this machine. Each module gives a JSON-able dict."""
