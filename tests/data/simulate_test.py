"""Simulated rewards have the expectation, shares and noise they say."""

import dataclasses

import numpy as np
import pytest

from erp_jax.core import config, errors
from erp_jax.data import simulate, simulate_config, splits
from erp_jax.probe import ceiling, decomposition, ridge, scores
from erp_jax.route import evaluate

# Column means of the paper's Tables 1 and 2: all, then by category.
_PAPER_R2 = {
  'oasst': (0.508, 0.376, 0.276, 0.250, 0.442),
  'grm': (0.374, 0.572, 0.004, 0.134, 0.276),
  'internlm': (0.286, 0.242, 0.072, -0.016, 0.206),
}


def _config(**changes):
  """A small population with one reward model, 'r'; prompt, … go to it."""
  part = simulate_config.Part
  fields = {
    'agreement': 1.0,
    'prompt': part(variance=0.6, linear=(0.5,)),
    'interaction': part(variance=0.3, linear=(0.5,)),
  }
  names = {f.name for f in dataclasses.fields(simulate_config.SimulatedReward)}
  fields |= {k: changes.pop(k) for k in list(changes) if k in names}
  values = {
    'prompts_per_category': 500,
    'width': 64,
    'rewards': {'r': simulate_config.SimulatedReward(**fields)},
  }
  return simulate_config.SimulationConfig(**values | changes)


def test_sample_means_are_about_er_by_the_noise_over_root_k():
  """Sums of squared standardised errors are chi-square."""
  cfg = _config(k=16, offset=2.0, scale=3.0, noise=0.7, noise_spread=0.5)
  drawn = simulate.draw(cfg)
  reward_NKM = drawn.reward_NKM('r')
  er_NM, sd_N = drawn.er_NM('r'), drawn.noise_sd_ZN[0]
  for mean_NM in (
    reward_NKM.mean(axis=1),
    drawn.mean_NM('r', 16),
    drawn.mean_NM('r', 16, draw=1),
  ):
    z_NM = (mean_NM - er_NM) / (sd_N[:, None] / 4)
    num = z_NM.size
    assert abs((z_NM**2).sum() - num) < 4 * np.sqrt(2 * num)
    assert abs(z_NM.sum()) < 4 * np.sqrt(num)
    correlation = np.corrcoef(z_NM.T) - np.eye(5)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(z_NM))
  z_NM = ((reward_NKM - er_NM[:, None]) / sd_N[:, None, None]).var(axis=1)
  # 15/16 for the variance about the cell's own ER, not its mean.
  np.testing.assert_allclose(z_NM.mean(), 15 / 16, atol=0.02)
  assert not np.array_equal(drawn.mean_NM('r', 16), drawn.mean_NM('r', 16, 1))


def test_the_noise_has_the_configured_size_and_spread():
  cfg = _config(
    scale=3.0, noise=0.7, noise_spread=0.5, prompts_per_category=5000
  )
  sd_N = simulate.draw(cfg).noise_sd_ZN[0] / 3.0
  np.testing.assert_allclose((sd_N**2).mean(), 0.7**2, rtol=0.06)
  np.testing.assert_allclose(np.log(sd_N).std(), 0.5, rtol=0.03)
  flat_N = simulate.draw(_config(noise=0.7, noise_spread=0.0)).noise_sd_ZN[0]
  np.testing.assert_allclose(flat_N, 0.7)


def test_the_variance_splits_as_configured():
  """Over populations: parts of the random effects in closed form.

  The mean over arms takes its share of correlated interactions with it.
  """
  arms = {
    name: simulate_config.SimulatedArm(family=family, quality=quality)
    for name, family, quality in (
      *(('a', 'x', 1.0), ('b', 'x', 0.0)),
      *(('c', 'y', -2.0), ('d', '', 1.0)),
    )
  }
  part = simulate_config.Part
  found = []
  for seed in range(12):
    cfg = _config(
      arms=arms,
      scale=2.0,
      arm=0.1,
      prompt=part(variance=0.5, category=0.3, linear=(0.5, 0.2, 0.9, 0.4)),
      interaction=part(variance=0.4, category=0.2, linear=(0.7,)),
      family_correlation=0.6,
      width=300,
      signal_exponent=0.0,
      seed=seed,
    )
    er_NM = simulate.draw(cfg).er_NM('r')
    parts = decomposition.decompose(
      ceiling.Cells(
        mean_NM=er_NM,
        num_NM=np.full(er_NM.shape, 2),
        var_NM=np.zeros(er_NM.shape),
        pooled_NM=np.zeros(er_NM.shape, bool),
      )
    )
    found.append((parts.prompt, parts.arm, parts.interaction))
  shared = 0.4 * (4 + 2 * 0.6) / 16  # Of the mean of four interactions.
  quality = np.var([1.0, 0.0, -2.0, 1.0])
  expected = 4 * np.array([0.5 + shared, 0.1 * quality, 0.4 - shared])
  error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
  assert (np.abs(np.mean(found, axis=0) - expected) < 4 * error + 0.01).all()
  assert (error < 0.06 * expected).all()


def test_the_embedding_tells_the_configured_share():
  """Least squares on many prompts, in each category and between them."""
  linear = (0.8, 0.4, 0.2, 0.6)
  cfg = _config(
    prompt=simulate_config.Part(variance=2.0, category=0.4, linear=linear),
    interaction=simulate_config.Part(variance=0.0),
    arm=0.0,
    prompts_per_category=6000,
    width=32,
  )
  drawn = simulate.draw(cfg)
  er_N = drawn.er_NM('r')[:, 0]
  mean_C, var_C = np.empty(4), np.empty(4)
  for c, category in enumerate(cfg.categories):
    rows = drawn.category_N == category
    design = np.column_stack(
      [drawn.emb_NE[rows, :-1].astype(np.float64), np.ones(rows.sum())]
    )
    fitted = design @ np.linalg.lstsq(design, er_N[rows])[0]
    assert abs(scores.r2(er_N[rows], fitted) - linear[c]) < 0.03
    mean_C[c], var_C[c] = er_N[rows].mean(), er_N[rows].var()
  np.testing.assert_allclose(mean_C.var(), 2.0 * 0.4, rtol=0.1)
  np.testing.assert_allclose(var_C.mean(), 2.0 * 0.6, rtol=0.05)
  # The linear function has the same variance in all of them.
  np.testing.assert_allclose(var_C * linear, (var_C * linear)[0], rtol=0.1)


def test_interactions_of_a_family_are_correlated():
  cfg = _config(
    prompt=simulate_config.Part(variance=0.0),
    arm=0.0,
    family_correlation=0.6,
    width=2000,
    signal_exponent=0.0,
  )
  correlation = np.corrcoef(simulate.draw(cfg).er_NM('r').T)
  expected = np.eye(5)
  expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = 0.6
  np.testing.assert_allclose(correlation, expected, atol=0.09)


def test_reward_models_agree_to_the_configured_extent():
  part = simulate_config.Part(variance=0.5, linear=(0.5,))
  reward = simulate_config.SimulatedReward(
    agreement=0.7, prompt=part, interaction=part
  )
  cfg = _config(
    rewards={'r': reward, 's': reward}, width=2000, signal_exponent=0.0
  )
  er_ZNM = simulate.draw(cfg).er_ZNM
  er_ZNM = er_ZNM - er_ZNM.mean(axis=1, keepdims=True)
  for m in range(5):
    found = np.corrcoef(er_ZNM[:, :, m])[0, 1]
    assert abs(found - 0.7) < 0.09


def test_an_added_arm_or_reward_model_changes_no_draw():
  cfg = _config(k=3, prompts_per_category=20)
  cfg = dataclasses.replace(
    cfg, rewards=cfg.rewards | {'s': simulate_config.SimulatedReward()}
  )
  every = simulate.draw(cfg)
  few = simulate.draw(cfg, arms=('gemma2-9b', 'llama31-8b'), rewards=('s',))
  assert few.arms == ('gemma2-9b', 'llama31-8b') and few.rewards == ('s',)
  np.testing.assert_array_equal(few.cost_M, [9.0, 8.0])
  np.testing.assert_array_equal(few.emb_NE, every.emb_NE)
  np.testing.assert_array_equal(few.er_NM('s'), every.er_NM('s')[:, [2, 0]])
  np.testing.assert_array_equal(
    few.reward_NKM('s'), every.reward_NKM('s')[:, :, [2, 0]]
  )
  np.testing.assert_array_equal(
    few.mean_NM('s', 3), every.mean_NM('s', 3)[:, [2, 0]]
  )
  for name in ('arms', 'rewards'):
    with pytest.raises(errors.UserError, match='not in simulation'):
      simulate.draw(cfg, **{name: ('x',)})


def test_more_prompts_leave_the_first_ones():
  cfg = _config(prompts_per_category=20)
  few = simulate.draw(cfg)
  many = simulate.draw(dataclasses.replace(cfg, prompts_per_category=50))
  rows = [many.prompt_ids.index(name) for name in few.prompt_ids]
  np.testing.assert_array_equal(many.emb_NE[rows], few.emb_NE)
  np.testing.assert_allclose(many.er_NM('r')[rows], few.er_NM('r'), atol=1e-6)
  np.testing.assert_array_equal(many.reward_NKM('r')[rows][:, 0].shape, (80, 5))
  np.testing.assert_array_equal(many.noise_sd_ZN[:, rows], few.noise_sd_ZN)


def test_what_is_common_to_all_arms_cancels_in_contrasts():
  """g(x) of a reward model, which Bradley-Terry does not identify."""
  one = simulate.draw(_config())
  part = simulate_config.Part(variance=50.0, category=0.5, linear=(0.9,))
  other = simulate.draw(_config(prompt=part, offset=-7.0))
  difference_NM = other.er_NM('r') - one.er_NM('r')
  assert difference_NM.mean() < -3 and difference_NM.std() > 3
  np.testing.assert_allclose(
    *(difference_NM, np.tile(difference_NM[:, :1], (1, 5))), atol=1e-12
  )
  share_M = evaluate.win_share(one.er_NM('r'))
  np.testing.assert_array_equal(evaluate.win_share(other.er_NM('r')), share_M)


@pytest.mark.parametrize('exponent', [0.0, 1.0])
def test_embeddings_have_unit_length_and_the_spectrum(exponent):
  cfg = _config(
    spectrum=exponent, prompts_per_category=8000, spread=0.2, centroid=0.6
  )
  drawn = simulate.draw(cfg)
  emb_NE = drawn.emb_NE.astype(np.float64)
  assert drawn.emb_NE.dtype == np.float32
  np.testing.assert_allclose((emb_NE**2).sum(axis=1), 1.0, atol=1e-6)
  expected = np.arange(1, 64) ** -exponent
  expected *= 0.2 / expected.sum()
  np.testing.assert_allclose(simulate.eigenvalues(cfg), expected)
  for category in cfg.categories:
    part_NE = emb_NE[drawn.category_N == category, :-1]
    covariance_EE = np.cov(part_NE.T)
    scale_E = np.sqrt(expected)
    np.testing.assert_allclose(
      covariance_EE / np.outer(scale_E, scale_E), np.eye(63), atol=0.08
    )
    length = np.linalg.norm(part_NE.mean(axis=0))
    np.testing.assert_allclose(length, 0.6, atol=0.01)


def test_other_prompts_are_of_the_same_population():
  cfg = _config(
    interaction=simulate_config.Part(variance=0.0),
    prompt=simulate_config.Part(variance=1.0, category=0.3, linear=(0.6,)),
    prompts_per_category=3000,
    width=300,  # In few dimensions centroids and directions are not apart.
  )
  one = simulate.draw(cfg)
  fields = {'prompt_seed': 1, 'prompts_per_category': 4000}
  other = simulate.draw(dataclasses.replace(cfg, **fields))
  assert not set(one.prompt_ids) & set(other.prompt_ids)
  assert all('Simulated' in text for text in other.prompts)
  assert np.abs(other.emb_NE[:3000] - one.emb_NE[:3000]).max() > 0.1
  elsewhere = simulate.draw(dataclasses.replace(cfg, seed=9, **fields))
  penalty = ridge.RidgeConfig(beta=1e-6)
  probe = ridge.fit(one.emb_NE, one.er_NM('r'), penalty)
  r2 = lambda drawn: scores.r2(
    drawn.er_NM('r')[:, 0], ridge.predict(probe, drawn.emb_NE)[:, 0]
  )
  assert abs(r2(other) - (0.3 + 0.7 * 0.6)) < 0.03
  assert r2(elsewhere) < 0.3


def test_the_defaults_are_shaped_like_the_paper():
  """R² of ridge, β = 1, 2000 training prompts: about the tables' means."""
  cfg = simulate_config.SimulationConfig()
  drawn = simulate.draw(cfg)
  train_N = splits.train_mask(drawn.prompt_ids, drawn.category_N.tolist(), 0)
  rows = [~train_N] + [
    ~train_N & (drawn.category_N == category) for category in cfg.categories
  ]
  assert (drawn.emb_NE[:, -1] == 0).mean() < 0.001  # Few are pulled in.
  means = [drawn.mean_NM(reward, cfg.k) for reward in drawn.rewards]
  probe = ridge.fit(
    drawn.emb_NE[train_N],
    np.concatenate(means, axis=1)[train_N],
    ridge.RidgeConfig(),
  )
  guesses = np.split(ridge.predict(probe, drawn.emb_NE), 3, axis=1)
  for reward, mean_NM, guess_NM in zip(
    drawn.rewards, means, guesses, strict=True
  ):
    found = [
      np.mean([scores.r2(mean_NM[r, m], guess_NM[r, m]) for m in range(5)])
      for r in rows
    ]
    miss = np.abs(np.subtract(found, _PAPER_R2[reward]))
    # GRM's code column is out of reach: the others' noise hides it from ridge.
    limit = np.where(np.array(_PAPER_R2[reward]) > 0.55, 0.22, 0.08)
    assert (miss < limit).all(), (reward, found)
    er_NM = drawn.er_NM(reward)
    best = drawn.arms[np.argmax(er_NM.mean(axis=0))]
    assert best in ('llama31-70b', 'gemma2-27b')
    share_M = evaluate.win_share(er_NM)
    assert share_M.max() < 0.6 and share_M.min() > 0.01


@pytest.mark.parametrize(
  'make, expected',
  [
    (lambda: simulate_config.Part(variance=-1.0), '>= 0'),
    (lambda: simulate_config.Part(category=1.5), '1.5'),
    (lambda: simulate_config.Part(linear=(0.5, 0.0)), '0.0'),
    (lambda: simulate_config.SimulatedArm(nominal_b=-1.0), 'nominal_b'),
    (lambda: simulate_config.SimulatedReward(noise=-1.0), 'noise'),
    (lambda: simulate_config.SimulatedReward(scale=0.0), 'scale'),
    (lambda: simulate_config.SimulatedReward(agreement=2.0), 'agreement'),
    (lambda: _config(k=0), 'simulation.k'),
    (lambda: _config(width=1), 'width'),
    (lambda: _config(seed=-1), 'seed'),
    (lambda: _config(family_correlation=2.0), 'family_correlation'),
    (lambda: _config(spread=0.9, centroid=0.5), 'spread'),
    (lambda: _config(categories=('a', 'a')), 'no two alike'),
    (lambda: _config(arms={}), 'at least one'),
    (lambda: _config(categories=('a', 'b', 'c'), **_linear(4)), 'linear'),
    (lambda: _config(categories=('a',), **_linear(1, 0.5)), 'category share'),
  ],
)
def test_mistakes_are_named(make, expected):
  with pytest.raises(errors.UserError, match=expected):
    make()


def _linear(num, category=0.0):
  return {
    'prompt': simulate_config.Part(
      variance=1.0, category=category, linear=(0.5,) * num
    )
  }


def test_the_config_takes_overrides():
  values = config.as_config_dict(simulate_config.SimulationConfig())
  values.rewards.grm.interaction.linear = (0.3,)
  built = config.build(simulate_config.SimulationConfig, values.to_dict())
  assert built.rewards['grm'].interaction.linear == (0.3,)
  assert (
    built.rewards['oasst']
    == simulate_config.SimulationConfig().rewards['oasst']
  )


def test_mixed_functions_keep_their_variance():
  """Exactly, in every population, whatever the directions of what is mixed."""
  part = simulate_config.Part
  cfg = _config(
    agreement=0.5,
    arm=0.0,
    prompt=part(variance=0.0),
    interaction=part(variance=3.0, category=0.4, linear=(1.0,)),
    signal_exponent=3.0,  # Few directions: they are far from orthogonal.
    prompts_per_category=6000,
    width=20,
  )
  drawn = simulate.draw(cfg)
  within_C, middle_C = zip(
    *(
      (rows.var(axis=0), rows.mean(axis=0))
      for rows in np.split(drawn.er_NM('r'), 4)
    ),
    strict=True,
  )
  np.testing.assert_allclose(np.mean(within_C, axis=0), 3.0 * 0.6, rtol=0.03)
  np.testing.assert_allclose(np.var(middle_C, axis=0), 3.0 * 0.4, rtol=0.06)
