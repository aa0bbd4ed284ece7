"""A submission to the NeurIPS LLM Efficiency Challenge: its files, and its server asked as HELM asks."""
