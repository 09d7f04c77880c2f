"""The search methods by name: the one place where a new one is added."""

from orchestrator.search.args import (
    ArgsParameters,
    StochasticArgsParameters,
    args_step,
    stochastic_args_step,
)
from orchestrator.search.base import NoParameters, base_step, greedy_step
from orchestrator.search.beam import (
    BeamParameters,
    StepBeamParameters,
    beam_step,
    begin_beams,
    step_beam_step,
)
from orchestrator.search.best_of_n import (
    BestOfNParameters,
    SamplesState,
    are_scored,
    draw_samples,
    score_samples,
)
from orchestrator.search.cards import CardsParameters, CardsState, begin_cards, cards_step
from orchestrator.search.dvts import DvtsParameters, begin_dvts, dvts_step
from orchestrator.search.general import GeneralParameters, begin_general, general_step
from orchestrator.search.method import Method
from orchestrator.search.vote import (
    VoteParameters,
    are_drawn,
    draw_texts,
    most_frequent,
    most_rewarded,
)

METHODS: dict[str, Method] = {
    "base": Method(NoParameters, base_step),
    "greedy": Method(NoParameters, greedy_step),
    "bon": Method(BestOfNParameters, score_samples, draw_samples, are_scored, state=SamplesState),
    "weighted_bon": Method(
        VoteParameters, score_samples, draw_texts, are_scored, most_rewarded, SamplesState
    ),
    "vote": Method(
        VoteParameters, score_samples, draw_texts, are_drawn, most_frequent, SamplesState
    ),
    "args": Method(ArgsParameters, args_step),
    "args_stochastic": Method(StochasticArgsParameters, stochastic_args_step),
    "tbs": Method(BeamParameters, beam_step, begin_beams),  # chunk = 1
    "cbs": Method(BeamParameters, beam_step, begin_beams),
    "cards": Method(CardsParameters, cards_step, begin_cards, state=CardsState),
    "general": Method(GeneralParameters, general_step, begin_general),
    "step_beam": Method(StepBeamParameters, step_beam_step, begin_beams),
    "dvts": Method(DvtsParameters, dvts_step, begin_dvts),
}
