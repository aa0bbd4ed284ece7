"""Settings that litft brings, installed as `litft.config_hub`; `maker/` writes them and is not installed."""
