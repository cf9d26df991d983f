"""What `functions-framework --target mutate` loads.

The function stands in the package, which serves it as well, without the 8 MiB of functions-framework.
"""

import functions_framework.aio

from injector.serving import function

mutate = functions_framework.aio.http(function.mutate)
