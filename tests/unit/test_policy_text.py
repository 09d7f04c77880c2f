"""What search scores of a finished response is what transformers reads of the conversation."""

from functools import lru_cache

import pytest
from support.template_families import TEXTS, byte_level
from support.template_forms import FORMS, MISTRAL_3

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.conversations.tokenizers import byte_pair_tokenizer
from orchestrator.scorers.token_converter import TokenConverter
from orchestrator.search.engines import Ids, ScoreRequest

PROMPT = [
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Paris. naïve 你好 🙂"},
    {"role": "user", "content": "What is 2 plus 3?"},
]
RESPONSES = [
    "First add 2 and 3.\n\nThat is 5. So the answer is 5!",
    "\n First add 2 and 3.  \n",
    " x", "x ", "5", " ?", "\u00a0x\u00a0", "\u3000x\u3000y \u3000", "\x0bx\x0c", "  two  spaces",
    "\n\nx", "\n", "a\n\n\n", "\r\nhello\r\n\r\nx", "\t\tx\t", "🙂🙂", "naïve café 你好",
    "\ufffdx\ufffd",
    "What is 2 plus 3?", "assistant", "\n's", "a \u2060content\u2060 b", " " * 40 + "x",
    "<think>\nhm\n</think>\n\nIt is 5.", "hm\n</think>\n\nIt is 5.", "<think>\n\n</think>\n\n5",
]  # fmt: skip


@lru_cache
def reward(form: str) -> Chat:
    make, template = FORMS[form]
    tokenizer = make()
    tokenizer.chat_template = template
    return Chat(tokenizer, (), template)


@lru_cache
def other_policy() -> Chat:
    tokenizer = byte_pair_tokenizer(TEXTS * 3, 400)
    return Chat(tokenizer, (), tokenizer.chat_template)


def as_transformers_reads(chat: Chat, response: str) -> Ids:
    messages = [*PROMPT, {"role": "assistant", "content": response}]
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False)
    return tuple(chat.tokenizer(text, add_special_tokens=False)["input_ids"])


def as_search_reads(chat: Chat, policy: Chat | None, response: str, before: int) -> Ids:
    """Of a response whose first ``before`` policy tokens were known."""
    _, ids = (policy or chat).answered(PROMPT, response)
    request = ScoreRequest(
        chat.reward_prompt_ids(PROMPT), ids[:before], (ids[before:],), (True,)
    )  # fmt: skip
    (found,) = TokenConverter(policy, chat).convert_request(request)
    own = found.request
    return own.prompt_ids + own.prefix_ids + own.extensions[0] + chat.closing_ids


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", [True, False], ids=["same tokenizer", "another tokenizer"])
def test_a_finished_response_is_read_as_its_template_writes_it(form: str, shared: bool) -> None:
    chat, policy = reward(form), None if shared else other_policy()
    for response in RESPONSES:
        if shared and form == "cuts one line end" and response.startswith("\n\n"):
            continue  # the policy's own text is cut already
        want = as_transformers_reads(chat, response)
        for before in (0, 1, 5):
            assert as_search_reads(chat, policy, response, before) == want, (response, before)


# Phi 3's control tokens take the white space behind them.
@pytest.mark.parametrize("form", [name for name in FORMS if name != "Phi 3"])
def test_an_answer_is_the_text_behind_what_the_template_writes(form: str) -> None:
    chat = reward(form)
    for response in ("It is 5.", " x", "  two  spaces", "5"):
        _, ids = chat.answered(PROMPT, response)
        begin, _ = chat.template.trims if chat.template else ("", "")
        text = chat.response_text(ids)
        assert text == response or text == response.lstrip(begin), (form, response)


def test_a_system_message_of_a_policys_prompt_is_where_its_template_writes_it() -> None:
    """In the last user turn, as of Mistral's later templates; a whole conversation has none."""
    tokenizer = FORMS["Mistral"][0]()
    chat = Chat(tokenizer, (), MISTRAL_3)
    messages = [{"role": "system", "content": "Be brief."}, *PROMPT]
    text = tokenizer.apply_chat_template(
        messages, chat_template=MISTRAL_3, tokenize=False, add_generation_prompt=True
    )
    assert chat.prompt_ids(messages) == tuple(
        tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    folded = [{"role": "user", "content": "Be brief.\n\nSo?"}, *PROMPT[1:]]
    assert chat.reward_prompt_ids(messages) == chat.reward_prompt_ids(folded)


def test_a_thought_that_goes_on_stands_where_a_finished_one_does() -> None:
    chat = reward("Qwen 3")
    whole = chat.conversation(PROMPT, "<think>\nhm\n</think>\n\nIt is 5.")
    ids = chat.response_ids("<think>\nhm")
    request = ScoreRequest(chat.reward_prompt_ids(PROMPT), (), (ids,), (False,))
    (found,) = TokenConverter(None, chat).convert_request(request)
    read = found.request.prompt_ids + found.request.prefix_ids + found.request.extensions[0]
    assert (whole.prompt_ids + whole.response_ids)[: len(read)] == read


def test_the_channel_of_an_answer_is_read_once_and_is_no_part_of_it() -> None:
    chat = reward("gpt-oss")
    ids = chat.marker_ids("<|channel|>final<|message|>It is 5.")
    assert chat.response_text(ids) == "It is 5."
    assert [chat.response_text(ids[:n]) for n in (1, 2)] == ["", ""]


def test_a_closing_that_merges_with_a_response_is_told(caplog: pytest.LogCaptureFixture) -> None:
    template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + '\n\n' }}"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chat = Chat(byte_level("<|endoftext|>", eos="<|endoftext|>"), (), template)
    with pytest.raises(TemplateRefuses, match="closing tokens merge"):
        chat.conversation(PROMPT, "It is so.")
    TokenConverter(None, chat)
    assert "closing tokens merge with responses that end with '.'" in caplog.text
    caplog.clear()
    TokenConverter(None, reward("ChatML"))
    assert not caplog.text
