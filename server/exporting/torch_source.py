"""Finding a PyTorch model: `module:factory`, with weights from a state-dict file if one is given."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from server.errors import ExportError
from server.exporting.complaints import USERS_CODE_RAISES, in_a_line, told

# torch is imported when it is needed only: the server runs without it.
TorchModule: TypeAlias = Any

_SHOWN_KEYS = 5
_SHOWN_NAMES = 20
_ONLY_TRAINING = (
    "num_batches_tracked"  # early PyTorch did not keep it, and PyTorch asks for it in no such file
)
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_PREFIXES = ("module.", "_orig_mod.")


def import_torch() -> Any:  # noqa: ANN401 - torch is optional, so nothing can be said about it statically
    """Return the torch module. Raises `ExportError` saying how to install it."""
    try:
        importlib.import_module("onnxscript")  # torch's exporter needs it and would say so only at the end
        return importlib.import_module("torch")
    except ImportError as error:
        raise ExportError(
            f"exporting a PyTorch model needs torch and onnxscript ({error}); "
            "install them with: pip install 'boulton[torch]'"
        ) from error


def load_model(spec: str, directory: Path) -> TorchModule:
    """Call the factory that `spec` names; its module may lie in `directory` or be installed.

    Args:
        spec: `package.module:factory`; the factory is a function or class without required arguments, or a
            ready torch.nn.Module.
        directory: searched first, normally the current one.

    Raises:
        ExportError: whatever stood in the way, and what to do.
    """
    torch = import_torch()
    module_name, _, attribute = spec.partition(":")
    with _importable(directory):
        made = _made(_attribute(_import(module_name, directory), attribute), spec, torch)
    if not isinstance(made, torch.nn.Module):
        raise ExportError(f"{spec} made a {type(made).__name__}, not a torch.nn.Module")
    module = _bare(made, torch)
    _check_exportable(module, spec, torch)
    return module


def in_float32(module: TorchModule) -> tuple[TorchModule, str]:
    """Return the module on the CPU in float32, and in what other precisions its weights were, for people.

    Before its weights are loaded: they may have more digits than the module was made with.
    """
    kinds = {tensor.dtype for tensor in _tensors(module) if tensor.dtype.is_floating_point}
    names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
    return module.cpu().float(), " and ".join(name for name in names if name != "float32")


def load_state_dict(module: TorchModule, path: Path) -> None:
    """Fill `module` with the tensors of `path`, out of a `state_dict` if there is one around them.

    The prefixes `module.` and `_orig_mod.` of wrapped models are taken off, unless the module has them, too.

    Raises:
        ExportError: the file is unreadable or unsafe, or its names and shapes are not the model's.
    """
    wanted = module.state_dict()
    state = _without_prefixes(_unwrapped(_load_tensors(path), path), wanted)
    faults = _mismatches(wanted, state)
    if faults:
        shown = "; ".join(faults[:_SHOWN_KEYS])
        more = f"; and {len(faults) - _SHOWN_KEYS} more" if len(faults) > _SHOWN_KEYS else ""
        raise ExportError(f"{path} does not fit the model: {shown}{more}")
    try:
        module.load_state_dict(state)
    except Exception as error:  # sparse, quantised and other tensors that cannot be copied
        raise ExportError(f"{path} cannot be loaded into the model: {in_a_line(error)}") from error


def _bare(module: TorchModule, torch: Any) -> TorchModule:  # noqa: ANN401 - see import_torch
    """Take off what a model is wrapped in to be trained or compiled."""
    inner = getattr(module, "_orig_mod", None)  # what torch.compile calls it
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        inner = module.module
    return _bare(inner, torch) if isinstance(inner, torch.nn.Module) else module


def _check_exportable(module: TorchModule, spec: str, torch: Any) -> None:  # noqa: ANN401 - see import_torch
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(
            f"{spec} made a TorchScript module, which PyTorch's exporter does not take: "
            "give the model that it was scripted or traced from"
        )
    if any(tensor.device.type == "meta" for tensor in _tensors(module)):
        raise ExportError(
            f"{spec} made a model on the device 'meta', which keeps no weights: make it on the CPU"
        )


def _tensors(module: TorchModule) -> tuple[Any, ...]:
    return (*module.parameters(), *module.buffers())


@contextmanager
def _importable(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have taken it out itself
            sys.path.remove(str(directory))


def _import(name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ExportError(
                f"no module named {error.name!r}: looked in {directory} and among the installed packages"
                f"{_torchvision_hint(name, error)}"
            ) from error
        raise ExportError(
            f"importing {name} needs {error.name!r}: {_install_hint(error.name or '')}"
        ) from error
    except USERS_CODE_RAISES as error:  # a module may raise anything while it is imported
        raise ExportError(
            f"importing {name} failed: {told(error)}{_torchvision_hint(name, error)}"
        ) from error


def _install_hint(package: str) -> str:
    return f"install it with: pip install {package.partition('.')[0]}"


def _torchvision_hint(name: str, error: BaseException) -> str:
    if "torchvision" not in f"{name} {error}":
        return ""
    return (
        "; torchvision must be there and built for the installed torch: install both from the same index, "
        "e.g. pip install --force-reinstall torch torchvision"
    )


def _attribute(module: ModuleType, attribute: str) -> object:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ExportError(f"{module.__name__} has no {attribute!r}; it has {_offered(module, attribute)}")
        found = getattr(found, part)
    return found


def _offered(module: ModuleType, wanted: str) -> str:
    """List what `wanted` may have meant: names like it, or else whatever there is."""
    public = sorted(name for name, value in vars(module).items() if callable(value) and name[0] != "_")
    return ", ".join(difflib.get_close_matches(wanted, public) or public[:_SHOWN_NAMES]) or "nothing to call"


def _made(factory: object, spec: str, torch: Any) -> object:  # noqa: ANN401 - see import_torch
    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise ExportError(
            f"{spec} is a {type(factory).__name__}; it must be a function that returns the model"
        )
    try:
        return factory()
    except USERS_CODE_RAISES as error:  # it is the user's code
        hint = "; it is called without arguments" if isinstance(error, TypeError) else ""
        raise ExportError(f"{spec}() raised {told(error)}{hint}") from error


def _load_tensors(path: Path) -> object:
    try:
        return import_torch().load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"--state-dict {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pickle, zipfile and torch raise half a dozen types
        first = _COLOURS.sub("", str(error).strip().partition("\n")[0]) or type(error).__name__
        raise ExportError(
            f"--state-dict {path} holds more than tensors, and for safety nothing else is loaded ({first}); "
            "write it with torch.save(model.state_dict(), path)"
        ) from error


def _unwrapped(loaded: object, path: Path) -> dict[str, Any]:
    state = loaded
    if isinstance(state, Mapping):
        state = next(
            (state[key] for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), state
        )
    if not isinstance(state, Mapping):
        raise ExportError(f"--state-dict {path} holds a {type(state).__name__}, not a state dict of tensors")
    return {str(key): value for key, value in state.items()}


def _without_prefixes(state: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Take off what DataParallel and torch.compile put before all names, in whatever order."""
    found = next((one for one in _PREFIXES if any(name.startswith(one) for name in state)), None)
    if found is None or any(name in wanted for name in state):
        return state
    return _without_prefixes({name.removeprefix(found): value for name, value in state.items()}, wanted)


def _mismatches(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    missing = [f"{key} is missing" for key in wanted if key not in given and not key.endswith(_ONLY_TRAINING)]
    unknown = [f"{key} is not in the model" for key in given if key not in wanted]
    shapes = [
        f"{key} has shape {_shape(given[key])} where the model has {_shape(wanted[key])}"
        for key in wanted
        if key in given and _shape(given[key]) != _shape(wanted[key])
    ]
    complex_ = [f"{key} has complex numbers" for key in given if _is_complex(given[key])]
    return missing + unknown + shapes + complex_


def _is_complex(value: Any) -> bool:  # noqa: ANN401 - see _shape
    return isinstance(value, import_torch().Tensor) and bool(value.is_complex())


def _shape(value: Any) -> list[int] | str:  # noqa: ANN401 - a tensor, or whatever else the file held
    return list(value.shape) if hasattr(value, "shape") else type(value).__name__
