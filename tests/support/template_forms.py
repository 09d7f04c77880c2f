"""Further chat templates in the public models' form, each with a way of writing a response.

Those of `template_families.py` have a reward model; these are for token ids alone.
"""

from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

from support.template_families import CHATML, FAMILIES, byte_level, sentence_pieces

# The answer is in a channel whose name a policy writes itself.
GPT_OSS = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}"
    "{% elif message.role == 'assistant' %}"
    "{% if '<|channel|>' in message.content %}{{ raise_exception('no channels') }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + message.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# The prompt opens a thought; of a finished answer all up to its end is left out.
R1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|User|>' + message['content'] }}{% else %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
# Blank lines become line ends.
FALCON = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ 'User: ' if message['role'] == 'user' else 'Falcon: ' }}"
    "{{ message['content'].strip().replace('\r\n', '\n').replace('\n\n', '\n') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nFalcon:' }}{% endif %}"
)
# Nothing stands behind an answer.
CHATGLM = (
    "[gMASK]<sop>{% for message in messages %}"
    "{{ '<|user|>\n' if message['role'] == 'user' else '<|assistant|>\n' }}{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VICUNA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + message['content'].strip() + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# An empty think block in the policy's prompt too; line ends at the beginning are left out.
SMOLLM3 = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}{% else %}{% generation %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + message.content.lstrip('\n')"
    " + '<|im_end|>\n' }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' }}{% endif %}"
)
# The system message stands in the last user turn, where a policy goes on from it.
MISTRAL_3 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for message in turns %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system + '\n\n' if loop.last and system is defined else '')"
    " + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)


def _chatml(content: str) -> str:
    return CHATML.replace("message['content']", content)


def _glm() -> PreTrainedTokenizerFast:
    names = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>")
    return sentence_pieces(*names, eos="</s>", prefix_space=True)


def _gpt_oss() -> PreTrainedTokenizerFast:
    names = ("<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|channel|>")
    return byte_level(*names, eos="<|return|>")


FORMS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], str]] = {
    **{
        name: (family.tokenizer, family.template)
        for name, family in FAMILIES.items()
        if family.template
    },
    "gpt-oss": (_gpt_oss, GPT_OSS),
    "R1": (FAMILIES["thinks"].tokenizer, R1),
    "Falcon": (lambda: byte_level("<|endoftext|>", eos="<|endoftext|>"), FALCON),
    "ChatGLM": (_glm, CHATGLM),
    "Vicuna": (lambda: sentence_pieces(eos="</s>", prefix_space=True), VICUNA),
    "SmolLM3": (FAMILIES["Qwen 3"].tokenizer, SMOLLM3),
    "strips some": (FAMILIES["ChatML"].tokenizer, _chatml(r"message['content'].strip(' \n\t\r')")),
    "cuts one line end": (
        FAMILIES["ChatML"].tokenizer,
        _chatml(
            "(message['content'][1:] if message['content'][:1] == '\n' else message['content'])"
        ),
    ),
}
