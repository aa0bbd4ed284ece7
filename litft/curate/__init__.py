"""What needs a model or an endpoint to choose rows or to make them: `litft curate`."""
