"""Each guard against harmful input: where it stands, how it is taken away, and the test that fails then."""

from __future__ import annotations

from typing import NamedTuple


class Guard(NamedTuple):
    """One guard.

    Attributes:
        name: what it is against.
        file: where it stands.
        text: the exact source, which stands there once.
        without: what stands there when it is taken away.
        test: of tests/, that must fail then.
    """

    name: str
    file: str
    text: str
    without: str
    test: str


SANDBOX, WORK = "litft/text/sandbox.py", "litft/text/work.py"
MUCH = "contracts/test_poison_templates.py::test_a_template_that_would_never_end_or_fill_the_memory"
AS_IT_STANDS = "contracts/test_poison_templates.py::test_a_template_that_is_refused_as_it_stands"
FILES = "contracts/test_poison_files.py::"
TEXT = "contracts/test_poison_text.py::"
HIDDEN = "contracts/test_poison_secrets.py::"
WEIGHTS = "contracts/test_bad_weights.py::"
OPERATORS = 'intercepted_binops = frozenset({"+", "*", "**", "%"})'
KNOWN_TAGS = 'for name in ("null", "bool", "int", "float", "str", "seq", "map")'

TEMPLATES = [
    Guard("steps of loops", SANDBOX, 'node.body.insert(0, nodes.ExprStmt(_own("step", node)))', "pass", f"{MUCH}[loops]"),
    Guard("steps that a loop passes over", SANDBOX, "if node.test is not None:", "if False:", f"{MUCH}[filtered loops]"),
    Guard("calls", SANDBOX, '        spend(CALL)\n        method', '        method', f"{MUCH}[calls]"),
    Guard("time", WORK, "if time.thread_time() > self._until:", "if False:", f"{MUCH}[uncounted]"),
    Guard("text * number", SANDBOX, OPERATORS, OPERATORS.replace('"*", ', ""), f"{MUCH}[text * number]"),
    Guard("text + text", SANDBOX, OPERATORS, OPERATORS.replace('"+", ', ""), f"{MUCH}[text + text]"),
    Guard("powers", SANDBOX, OPERATORS, OPERATORS.replace('"**", ', ""), f"{MUCH}[power]"),
    Guard("widths", SANDBOX, OPERATORS, OPERATORS.replace(', "%"', ""), f"{MUCH}[width of nine digits]"),
    Guard("widths that are given", WORK, 'if "*" in form or', "if False and", f"{MUCH}[width that is given]"),
    Guard("text ~ text", SANDBOX, 'return _call("joined", node, list(node.nodes))', "return node", f"{MUCH}[text ~ text]"),
    Guard("captured blocks", SANDBOX, 'return "".join(counted(pieces))', 'return "".join(pieces)', f"{MUCH}[blocks]"),
    Guard("slices", SANDBOX, "if not isinstance(node.arg, nodes.Slice):", "if True:", f"{MUCH}[slices]"),
    Guard("values that are written", SANDBOX, "finalize=weighed, ", "", f"{MUCH}[a list written out]"),
    Guard("lists", SANDBOX, 'return _call("weighed", node, [node])', "return node", f"{MUCH}[lists compared]"),
    Guard("maps", SANDBOX, "elif called is dict:", "elif False:", f"{MUCH}[maps]"),
    Guard("depth", WORK, "if depth > DEEPEST:", "if False:", "contracts/test_poison_templates.py::test_what_is_too_deep_is_not_weighed"),
    Guard("methods", SANDBOX, "spend(cost_of_call(method.__name__, owner, args, named))", "pass", f"{MUCH}[ljust]"),
    Guard("str.format", WORK, 'if name in ("format", "format_map"):', "if False:", f"{MUCH}[format method]"),
    Guard("join", WORK, "return cost + sum(_cost_of_join(each, owner) for each in given)", "return cost", f"{MUCH}[join]"),
    Guard("expandtabs", WORK, ' if name in ("expandtabs", "translate") else cost', " if False else cost", f"{MUCH}[expandtabs]"),
    Guard("filters", SANDBOX, "_bounded(name, each) for name", "each for name", f"{MUCH}[center]"),
    Guard("join filter", WORK, "sum(_cost_of_join(args[0], each) for each in options)", "0", f"{MUCH}[join between]"),
    Guard("join one by one", WORK, "if isinstance(joined, Iterator) and", "if False and", f"{MUCH}[join lazily]"),
    Guard("replace filter", WORK, "cost + _cost_of_replace(args[0], *options)", "cost", f"{MUCH}[replace filter]"),
    Guard("options at each line", WORK, '_MULTIPLYING = ("indent", "wordwrap", "tojson")', "_MULTIPLYING = ()", f"{MUCH}[indent]"),
    Guard("sums of lists", WORK, 'if name == "sum" and any(', "if False and any(", "contracts/test_poison_templates.py::test_lists_are_not_added_up_one_by_one"),
    Guard("forms of the date", SANDBOX, "if len(form) > LONGEST_DATE:", "if False:", f"{MUCH}[date]"),
    Guard("long sources", SANDBOX, "if len(source) > LONGEST_SOURCE:", "if False:", f"{MUCH}[source]"),
    Guard("filters by patterns", SANDBOX, '"filters": ("urlize", "striptags")', '"filters": ()', f"{AS_IT_STANDS}[urlize]"),
    Guard("lipsum", SANDBOX, '"globals": ("lipsum",)', '"globals": ()', f"{AS_IT_STANDS}[lipsum]"),
    Guard("recursion", SANDBOX, "ArithmeticError, RecursionError)", "ArithmeticError)", f"{AS_IT_STANDS}[recursion]"),
    Guard("nesting", SANDBOX, "except (RecursionError, MemoryError, SyntaxError) as", "except KeyError as", f"{AS_IT_STANDS}[brackets]"),
    Guard("attributes", SANDBOX, OPERATORS, f"is_safe_attribute = lambda *given: True\n    {OPERATORS}", f"{AS_IT_STANDS}[globals]"),
    Guard("words without end", "litft/text/template.py", "{str(error)[:_SAID]}", "{error}", f"{AS_IT_STANDS}[words without end]"),
    Guard(
        "a row after the other",
        "litft/text/template.py",
        "except TooMuchError as error:",
        "except TooMuchError as error:\n            raise StyleError('too much') from error\n        except KeyError as error:",
        "contracts/test_poison_templates.py::test_a_conversation_that_makes_a_template_run_away",
    ),
]  # fmt: skip

PICKLES = [
    Guard("pickles of weights", "litft/checkpoint/pickled.py", "path, map_location=\"cpu\", mmap=True, weights_only=True", 'path, map_location="cpu", mmap=True, weights_only=False', f"{WEIGHTS}test_code_in_a_bin_does_not_run[exec-2]"),
    Guard("pickles of protocol 5", "litft/checkpoint/pickled.py", "if (module, name) not in _HARMLESS:", "if False:", f"{WEIGHTS}test_code_in_a_bin_does_not_run[exec-4]"),
    Guard("pickles of Lit-GPT", "litft/checkpoint/pickled.py", "if (module, name) not in _HARMLESS:", "if False:", "unit/test_from_litgpt.py::test_no_code_of_a_file_is_run[5]"),
    Guard("pickles of rows", "litft/data/store.py", 'map_location="cpu", weights_only=True', 'map_location="cpu", weights_only=False', f"{FILES}test_no_code_in_rows_of_tokens_is_run[True-2]"),
    Guard("pickles of train.pt", "litft/data/store.py", 'map_location="cpu", weights_only=True', 'map_location="cpu", weights_only=False', "unit/test_store.py::test_no_code_is_executed"),
    Guard("packed archives", "litft/checkpoint/pickled.py", "    if packed:\n", "    if False:\n", f"{FILES}test_an_archive_that_is_larger_unpacked"),
    Guard("tensors without numbers", "litft/checkpoint/pickled.py", "if part.numel() * part.element_size() > part.untyped_storage().nbytes():", "if False:", f"{FILES}test_a_tensor_that_is_larger_than_its_file[False]"),
    Guard("lists in themselves", "litft/checkpoint/pickled.py", "if id(part) in seen:", "if False:", f"{FILES}test_a_list_that_holds_itself_many_times"),
]  # fmt: skip

HEADERS = [
    Guard("tensors that overlap", "litft/checkpoint/tensors.py", "        if begin != place:\n", "        if False:\n", f"{WEIGHTS}test_tensors_that_overlap_or_leave_gaps"),
    Guard("lengths of tensors", "litft/checkpoint/tensors.py", "if end - begin != specs[name].n_bytes:", "if False:", f"{WEIGHTS}test_a_header_that_does_not_fit"),
    Guard("negative offsets", "litft/checkpoint/tensors.py", "or not 0 <= begin <= end:", "or False:", f"{WEIGHTS}test_a_header_that_does_not_fit"),
    Guard("names that stand twice", "litft/checkpoint/tensors.py", "        if name in made:\n", "        if False:\n", f"{WEIGHTS}test_a_name_that_stands_twice"),
    Guard("headers of gigabytes", "litft/checkpoint/tensors.py", "header_bytes > min(size_bytes - 8, _MAX_HEADER_BYTES)", "header_bytes > size_bytes - 8", f"{WEIGHTS}test_a_header_that_would_fill_the_memory"),
    Guard("sizes of thousands of digits", "litft/checkpoint/tensors.py", "0 <= value <= _LARGEST_SIZE", "0 <= value", f"{FILES}test_a_shape_that_no_memory_holds[shape1]"),
    Guard("shapes of thousands of sizes", "litft/checkpoint/tensors.py", "or len(shape) > _MOST_SIZES", "", f"{FILES}test_a_shape_that_no_memory_holds[shape2]"),
    Guard("state that is another file", "litft/train/saving.py", 'load_weights(folder / f"{name}.safetensors") for name', '__import__("safetensors.torch").torch.load_file(folder / f"{name}.safetensors") for name', f"{FILES}test_a_step_checkpoint_that_is_another_file[row_losses]"),
    Guard("indices that leave the folder", "litft/checkpoint/weights.py", 're.search(r"[\\\\/:]", shard)', "False", f"{WEIGHTS}test_an_index_that_leaves_its_folder[../raw/{{}}-safetensors]"),
    Guard("names that cannot be shown", "litft/checkpoint/weights.py", "or not shard.isprintable():", "or False:", f"{FILES}test_an_index_with_names_that_cannot_be_shown[a\\nb.safetensors]"),
    Guard("repositories that leave the folder", "litft/config/download.py", "if not _REPO_ID.fullmatch(self.repo_id) or", "if", "unit/test_download.py::test_what_is_no_repository_name_is_refused[name]"),
    Guard("files that leave the folder", "litft/checkpoint/download.py", 're.fullmatch(r"[\\w.+-]+", name)]', "True]", f"{FILES}test_names_of_a_repository_that_leave_the_folder_or_cannot_be_shown"),
    Guard("links", "litft/checkpoint/disk.py", "os.replace(temporary, path)", "shutil.copyfile(temporary, path)", f"{FILES}test_a_link_is_not_written_through"),
]  # fmt: skip

DESCRIPTIONS = [
    Guard("sizes that no model has", "litft/config/model.py", "if getattr(self, field) > largest:", "if False:", f"{FILES}test_sizes_that_no_model_has[vocab_size-llama]"),
    Guard("sizes below 1", "litft/config/model.py", "if getattr(self, field) < 1:", "if False:", f"{FILES}test_sizes_that_no_model_has[vocab_size-llama]"),
    Guard("blocks listed before they are counted", "litft/families/fields.py", 'if n_layer > LARGEST["n_layer"]:', "if False:", f"{FILES}test_sizes_that_no_model_has[num_hidden_layers-gemma3_text]"),
    Guard("numbers without end", "litft/config/model.py", "not abs(number) <= LARGEST_NUMBER", "False", f"{FILES}test_a_saved_description_is_held_to_the_same"),
    Guard("numbers of config.json", "litft/families/fields.py", " or not abs(value) <= LARGEST_NUMBER", "", f"{FILES}test_rotations_that_cannot_be_computed[factor-linear]"),
    Guard("rotations", "litft/families/rope.py", " or not abs(value) <= LARGEST_NUMBER", "", f"{FILES}test_rotations_that_cannot_be_computed[original_max_position_embeddings-yarn]"),
    Guard("arithmetic", "litft/families/__init__.py", "except (ArithmeticError, ValueError) as error:", "except KeyError as error:", f"{FILES}test_rotations_that_cannot_be_computed[original_max_position_embeddings-yarn]"),
    Guard("model types that are no text", "litft/families/__init__.py", "str(model_type) if model_type else None", "model_type", f"{FILES}test_a_model_type_that_is_no_text[model_type0]"),
    Guard("large JSON", "litft/checkpoint/disk.py", "> _LARGEST_JSON:", "> 2**60:", f"{FILES}test_a_description_that_would_fill_the_memory"),
    Guard("auto_map", "litft/checkpoint/convert.py", 'if "auto_map" in hf_config:', "if False:", f"{FILES}test_code_that_a_checkpoint_names_is_not_run"),
    Guard("trust_remote_code", "litft/export/elsewhere.py", "output_loading_info=True, trust_remote_code=False", "output_loading_info=True", f"{FILES}test_nothing_imports_or_unpickles_what_a_file_says"),
]  # fmt: skip

TOKENIZERS = [
    Guard("large files", "litft/text/settings.py", "if size > LARGEST_FILE:", "if False:", f"{FILES}test_a_file_of_a_tokenizer_that_would_fill_the_memory[tokenizer.model]"),
    Guard("large templates", "litft/text/style_files.py", "        refuse_large(path)\n", "", f"{FILES}test_a_file_of_a_tokenizer_that_would_fill_the_memory[chat_template.jinja]"),
    Guard("ids of tokenizer.json", "litft/text/backends.py", "_refuse_ids(path, self._literal.get_vocab().values())", "pass", f"{FILES}test_a_tokenizer_that_no_model_has[an id of 2**31]"),
    Guard("ids of added tokens", "litft/text/backends.py", "_refuse_ids(path, self._added.values())", "pass", f"{FILES}test_an_added_id_that_no_matrix_has_a_row_for[added_tokens.json-1099511627776]"),
    Guard("texts that grow", "litft/text/growth.py", "if growth > LARGEST_GROWTH:", "if False:", f"{FILES}test_a_tokenizer_that_no_model_has[a text a trillion times as long]"),
    Guard("panics", "litft/text/backends.py", 'if type(error).__name__ != "PanicException":', "if True:", f"{FILES}test_a_pattern_that_goes_back_too_often"),
    Guard("pieces that are no text", "litft/text/backends.py", "        pieces.id_to_piece(list(range(pieces.get_piece_size())))  # all of them are text\n", "", f"{FILES}test_pieces_that_are_no_text"),
    Guard("no pieces", "litft/text/backends.py", "        pieces.id_to_piece(pieces.unk_id())  # and there is one for what is none of them\n", "", f"{FILES}test_a_sentencepiece_model_without_pieces"),
    Guard("JSON without end", "litft/text/settings.py", "except (ValueError, RecursionError) as error:  # a number", "except KeyError as error:  # a number", f"{FILES}test_a_tokenizer_that_no_model_has[nesting]"),
    Guard("digits that are none", "litft/text/settings.py", 're.fullmatch("[0-9]{1,20}", str(number))', "str(number).isdigit()", f"{FILES}test_an_added_id_that_no_matrix_has_a_row_for[tokenizer_config.json-1099511627776]"),
]  # fmt: skip

SETTINGS = [
    Guard("a billion laughs", "litft/config/io.py", "            _refuse_more(root)\n", "            pass\n", f"{TEXT}test_yaml_that_is_more_than_its_text[a billion laughs]"),
    Guard("tags of YAML", "litft/config/io.py", KNOWN_TAGS, 'for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "set")', f"{TEXT}test_yaml_that_is_more_than_its_text[a set]"),
    Guard("code in YAML", "litft/config/io.py", "class StrictLoader(yaml.SafeLoader):", "class StrictLoader(yaml.UnsafeLoader):", f"{TEXT}test_yaml_that_is_more_than_its_text[python]"),
    Guard("values without their type", "litft/config/io.py", "ValueError, KeyError, RecursionError)", "ValueError, RecursionError)", f"{TEXT}test_yaml_that_is_more_than_its_text[no bool]"),
    Guard("nesting of YAML", "litft/config/io.py", "ValueError, KeyError, RecursionError)", "ValueError, KeyError)", f"{TEXT}test_yaml_that_is_more_than_its_text[nesting without end]"),
    Guard("large YAML", "litft/config/io.py", "> LONGEST_BYTES:", "> 2**60:", f"{TEXT}test_yaml_that_would_take_minutes"),
    Guard("escapes in sentences", "litft/terminal/bars.py", "harmless(without_secrets(text))", "without_secrets(text)", f"{TEXT}test_names_and_values_in_mistakes"),
    Guard("escapes in tables", "litft/terminal/bars.py", "text.harmless() if isinstance(text, Table) else", "text if isinstance(text, Table) else", f"{TEXT}test_nothing_that_a_terminal_obeys_is_said"),
    Guard("escapes in answers", "litft/cli.py", "sys.stdout.write(for_stdout(piece))", "sys.stdout.write(piece)", f"{TEXT}test_an_answer_on_a_terminal_and_in_a_file"),
    Guard("escapes in tokens", "litft/data/view.py", '_HIDDEN = ("Cc", ', "_HIDDEN = (", f"{TEXT}test_colours_of_our_own_and_nobody_elses"),
    Guard("line ends in sentences", "litft/cli.py", 'str(error).replace("\\n", "\\\\n")', "str(error)", f"{TEXT}test_names_and_values_in_mistakes"),
]  # fmt: skip

ROWS = [
    Guard("lines without end", "litft/data/reading/lines.py", "            if len(line) > LONGEST_BYTES:\n", "            if False:\n", "contracts/test_bad_data.py::test_a_line_without_end[alpaca-rows.jsonl]"),
    Guard("values without end", "litft/data/reading/lists.py", "if len(kept) > LONGEST_BYTES:", "if False:", "contracts/test_bad_data.py::test_a_line_without_end[alpaca-rows.json]"),
    Guard("texts that stand very often", "litft/data/reading/parquet.py", ", read_dictionary=texts)", ")", f"{FILES}test_a_text_that_stands_very_often_in_a_few_bytes[1-20000]"),
    Guard("texts that stand very often in lists", "litft/data/reading/parquet.py", "if len(flat) == len(columns) else NESTED_ROWS", "", f"{FILES}test_a_text_that_stands_very_often_within_lists"),
    Guard("rows that are too large", "litft/data/reading/parquet.py", "columns)) > BATCH_BYTES:", "columns)) > 2**60:", f"{FILES}test_a_text_that_stands_very_often_in_a_few_bytes[70-2]"),
]  # fmt: skip

SECRETS = [
    Guard("secrets that are said", "litft/terminal/bars.py", "harmless(without_secrets(text))", "harmless(text)", f"{HIDDEN}test_what_is_said_passes_without_secrets"),
    Guard("passwords of the hub's address", "litft/checkpoint/download.py", 'where = f"{config.repo_id} at {without_secrets(constants.ENDPOINT)}"', 'where = f"{config.repo_id} at {constants.ENDPOINT}"', f"{HIDDEN}test_a_download_keeps_its_token_and_the_password_of_its_address"),
    Guard("passwords of an endpoint's address", "litft/config/asking.py", "if parts.username is not None or parts.password is not None or parts.query or parts.fragment:", "if False:", f"{HIDDEN}test_no_command_writes_or_prints_a_key"),
    Guard("tokens of a wrong kind", "litft/config/parse.py", 'said = "***" if field.secret else given.text', "said = given.text", f"{HIDDEN}test_a_token_of_a_wrong_kind_is_not_shown"),
    Guard("tokens in printed configs", "litft/config/parse.py", "if not _is_secret(fields, name)}))", "}))", f"{HIDDEN}test_a_token_is_not_printed_with_the_config"),
    Guard("tokens in the title of a process", "litft/config/parse.py", "            hide_argument(text)", "            pass", f"{HIDDEN}test_a_token_that_was_typed_does_not_stand_in_the_title_of_the_process[words0]"),
    Guard("tokens in configs", "litft/config/download.py", "        repr=False,\n", "", f"{HIDDEN}test_a_download_keeps_its_token_and_the_password_of_its_address"),
    Guard("keys that a server repeats", "litft/asking/endpoint.py", 'line.replace(self._key, "***")', "line", "unit/test_curate_endpoint.py::test_the_key_is_seen_by_the_server_alone[400]"),
    Guard("keys in the words of a logger", "litft/train/loggers.py", 'return without_secrets(text).rstrip(".")', 'return text.rstrip(".")', "unit/test_loggers.py::test_a_reason_hides_keys_and_passwords"),
]  # fmt: skip

GUARDS = [*TEMPLATES, *PICKLES, *HEADERS, *DESCRIPTIONS, *TOKENIZERS, *SETTINGS, *ROWS, *SECRETS]
