"""Wrong answers to the exercises of the chapter in practice: at least three for each."""

import torch

WRONG = {
    "beyond-chance": [
        lambda score, chance: score - chance,
        lambda score, chance: score / chance,
        lambda score, chance: max(0, (score - chance) / (1 - chance)),
        lambda score, chance: None,
    ],
    "hours": [
        lambda pictures, steps, seconds, samples: pictures * steps * samples * seconds / 3600,
        lambda pictures, steps, seconds, samples: 6 * pictures * steps * seconds / 3600,
        lambda pictures, steps, seconds, samples: 6 * pictures * steps * samples * seconds / 60,
        lambda pictures, steps, seconds, samples: "long",
    ],
    "mean-of-all": [
        lambda scores, attacked: scores.mean(),
        lambda scores, attacked: scores[attacked].mean(),
        lambda scores, attacked: torch.where(attacked, scores, 1.0).nanmean(),
        lambda scores, attacked: torch.where(attacked, scores, 0.0).mean(),
    ],
    "contradictions": [
        lambda proved, reached: (reached <= proved).nonzero().flatten().tolist(),
        lambda proved, reached: (reached > proved).nonzero().flatten().tolist(),
        lambda proved, reached: int((reached < proved).sum()),
        lambda proved, reached: (~(reached >= proved)).nonzero().flatten().tolist(),
    ],
}
