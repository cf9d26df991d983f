"""What `functions-framework --target mutate` loads: the function stands in the package, which serves it as well."""

from injector.serving.function import mutate

__all__ = ["mutate"]
