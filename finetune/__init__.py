"""The recipes, one file a method; installed as `litft.recipes`."""
