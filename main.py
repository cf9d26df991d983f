"""What `functions-framework --target mutate` loads.

The function stands in the package, as the container serves the application in it without functions-framework.
"""

import functions_framework.aio

from injector.serving import function

mutate = functions_framework.aio.http(function.mutate)
