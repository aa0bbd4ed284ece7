"""Ways of finetuning: each swaps modules of a built GPT and says which parameters it trains."""
