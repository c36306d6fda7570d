"""The tiny GPT-2 of tests/golden/arch as bitsandbytes 0.50.2 quantizes it, saved by transformers 5.23.0 (torch 2.9.1) on a CPU: tests/golden/bnb/gpt2-*.
usage: make_gpt2_bnb.py DIR_OF_GPT2 OUT
GPT-2's layers are Conv1D, whose matrices files hold as [in, out]; the quantized tensors are those of [out, in]."""
import os, sys
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

four = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float16)
for name, options in (("gpt2-nf4-dq", four), ("gpt2-int8", dict(load_in_8bit=True))):
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], quantization_config=BitsAndBytesConfig(**options), dtype=torch.float16)
    model.save_pretrained(os.path.join(sys.argv[2], name))
    os.remove(os.path.join(sys.argv[2], name, "generation_config.json"))
