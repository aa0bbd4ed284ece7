"""The embedded default: a tiny base model trained from nothing, its tokenizer, an instruction dataset, their recipe.

    words/*.txt -> words.py -> corpus.py (plain text: what the base model learns)
                           \\-> tasks.py  (Alpaca rows: the form that finetuning teaches) -> data/*.json
    corpus + tasks -> build.py (tokenizer and config.json of the model folder);  base.yaml, lora.yaml: the two recipes

The base model reads facts in plain sentences and never an instruction; finetuning shows it instructions about other
words. That the finetuned model answers for words it only met as plain text is what the demo measures.
"""
