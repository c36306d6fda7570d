"""A checkpoint that a peer quantizes and writes itself, for qppl to read (docs/INTEROP.md).
usage: write.py bitsandbytes|gptqmodel|llmcompressor KIND MODEL_DIR OUT_DIR CALIBRATION.jsonl|.txt    few and short samples: how well it quantizes is not asked"""
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(2)
SAMPLES, LENGTH = 4, 256


def samples(path, text):
    words = "\n\n".join(json.loads(l)["text"] for l in open(text)) if text.endswith(".jsonl") else open(text).read()
    ids = AutoTokenizer.from_pretrained(path)(words).input_ids
    return [{"input_ids": ids[i * LENGTH:(i + 1) * LENGTH], "attention_mask": [1] * LENGTH} for i in range(SAMPLES)]


def bitsandbytes(kind, path, text):
    from transformers import BitsAndBytesConfig
    config = BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16, quantization_config=config)


def gptqmodel(kind, path, text):
    from gptqmodel import GPTQModel, QuantizeConfig
    more = {"gptq": {}, "gptq-act": {"desc_act": True, "act_group_aware": False}, "gptq-asym": {"sym": False, "format": "gptq_v2"}}[kind]
    model = GPTQModel.load(path, QuantizeConfig(bits=4, group_size=64, device="cpu", **more))
    model.quantize(samples(path, text), batch_size=1)
    return model


def llmcompressor(kind, path, text):
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if kind == "gptq":
        weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 64}
        recipe = GPTQModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"])
        data = Dataset.from_list(samples(path, text))
        oneshot(model=model, dataset=data, recipe=recipe, max_seq_length=LENGTH, num_calibration_samples=SAMPLES)
    else:
        weights = {"fp8": {"num_bits": 8, "type": "float", "strategy": "channel"}, "int8": {"num_bits": 8, "type": "int", "strategy": "channel"}, "w4a16": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 64}}[kind]
        oneshot(model=model, recipe=QuantizationModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"]))
    return model


peer, kind, path, out, text = sys.argv[1:6]
model = {"bitsandbytes": bitsandbytes, "gptqmodel": gptqmodel, "llmcompressor": llmcompressor}[peer](kind, path, text)
if peer == "gptqmodel":
    model.save(out)
else:
    model.save_pretrained(out, **({"save_compressed": True} if peer == "llmcompressor" else {}))
AutoTokenizer.from_pretrained(path).save_pretrained(out)
