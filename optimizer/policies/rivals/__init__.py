"""Published controllers of batch size and GPU clock, each behind the Policy protocol, to be compared with.

Each follows the rule, the signals and the constants of its paper. Where a paper leaves something open, the
docstring of the policy says so and what was chosen: the version most favourable to it. None of them lets a
batch wait to grow or sets an alarm, for none of them did.

Two of the controllers often named beside these are missing, because they are no serving policies that could
be written down faithfully:

- Zeus (You, Chung, Chowdhury, NSDI 2023) governs training: it samples batch sizes across recurring jobs and
  profiles power limits within one, to minimise eta * energy + (1 - eta) * maximum power * time. No job recurs
  here and no loss converges. Its cost is there as a form of the targets instead.
- EAIS (Yao et al., FGCS 2022) coordinates batch size and clock with the load under the SLO; only its abstract
  could be read, which states neither its model nor its rule.
"""
