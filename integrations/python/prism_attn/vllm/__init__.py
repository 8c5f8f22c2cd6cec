"""prism-attn in vLLM: long prefills go through the library, everything else stays with vLLM's own backend.

`vllm serve MODEL --attention-backend CUSTOM` on a GPU; on the CPU it is there once the package is installed.
docs/serving.md has the settings. vLLM calls register() in every process, through the entry point
vllm.general_plugins.
"""

from __future__ import annotations

from ..serving import is_off, read_settings

TESTED = ("0.26", "0.32")


def register() -> None:
    """Makes the backend known; may be called again and again. PRISM_METHOD=off: does nothing."""
    if is_off():
        return
    import vllm
    from vllm.logger import init_logger
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    read_settings()  # a mistake in the environment shows here, before a model is loaded
    if not any(vllm.__version__.startswith(f"{version}.") for version in TESTED):
        log = init_logger("vllm.prism_attn")
        log.warning("prism-attn is tested with vLLM %s; this is %s", " and ".join(TESTED), vllm.__version__)
    # The CPU's platform takes no other backend than CPU_ATTN, but asks the registry where that is.
    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.cpu.PrismBackend")
    elif current_platform.is_cuda():
        register_backend(AttentionBackendEnum.CUSTOM, f"{__name__}.cuda.PrismBackend")
