import numpy as np
import pytest
import torch
import transformers
from etils import epath

from erp_jax.core import store, workdir
from erp_jax.data import embeddings, prompts
from erp_jax.embed import embedder, stage


@pytest.mark.parametrize('normalize', [True, False])
def test_gte_of_a_run(tmp_path, minilm_dir, normalize):
  torch.manual_seed(0)
  config = transformers.GteConfig(
    vocab_size=30528,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    type_vocab_size=2,
    pad_token_id=0,
    rope_parameters={'rope_type': 'default', 'rope_theta': 10_000.0},
  )
  model = transformers.GteModel(config).eval()
  folder = tmp_path / 'gte-tiny'
  model.save_pretrained(folder)
  tokens = transformers.AutoTokenizer.from_pretrained(minilm_dir)
  tokens.save_pretrained(folder)
  asked = prompts.load(prompts.PromptConfig(limit_per_category=2))
  limit = sorted(len(tokens(p.prompt)['input_ids']) for p in asked)[-2]
  cfg = embedder.EmbedConfig(
    encoder=str(folder), max_tokens=limit, normalize=normalize
  )
  run = workdir.Workdir(epath.Path(tmp_path / 'run'), {'versions': {}})
  stage.run(run, asked, cfg)
  stored = run.path / 'embeddings/gte-tiny'
  manifest = store.read_manifest(stored)
  want_NE = []
  for prompt in asked:  # [CLS], which is no unit vector.
    ids = tokens(
      prompt.prompt, truncation=True, max_length=limit, return_tensors='pt'
    )
    with torch.no_grad():
      want_NE.append(model(**ids).last_hidden_state[0, 0].numpy())
  norm_N = np.linalg.norm(want_NE, axis=1)
  assert manifest['info']['mean_norm'] == pytest.approx(norm_N.mean(), rel=1e-5)
  assert abs(norm_N.mean() - 1) > 0.1
  assert manifest['info']['width'] == 24
  assert manifest['counts']['truncated'] == 1
  got_NE = embeddings.read(stored, [prompt.id for prompt in asked])
  if normalize:
    want_NE = np.stack(want_NE) / norm_N[:, None]
  np.testing.assert_allclose(got_NE, want_NE, atol=2e-6)
