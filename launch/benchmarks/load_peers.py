"""The same folders read by transformers' from_pretrained."""


def decoder_weights(folder: str) -> None:
  """In bfloat16."""
  import torch
  import transformers

  transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.bfloat16
  )


def encoder_weights(folder: str) -> None:
  """In float32."""
  import torch
  import transformers

  transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)


def prepare(argument):
  """As load_ours."""
  from launch.benchmarks import load_folder  # What a new process need not read.

  return load_folder.timed(argument, __name__)
