"""Results out: a finetuned model in the form that another tool, or litft itself, loads."""
