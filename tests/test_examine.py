"""What is found in a document, and where it is said to be."""

from injector import GROUP, manifests, options
from injector.command.examine import Finding, beside, examine

DEFAULTS = options.read({})
POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    {GROUP}/inject: "true"
    {GROUP}/bucket: My
spec:
  securityContext: {{runAsUser: 0}}
  containers: [{{name: app, image: "a:1"}}]
"""


def test_each_finding_has_its_place_its_object_and_how_bad_it_is() -> None:
    (document,) = manifests.read(POD)
    error, warning = examine("f.yaml", document, "", DEFAULTS, beside([], DEFAULTS), injecting=False).findings
    assert (error.line, error.severity, error.field) == (7, "error", f"{GROUP}/bucket")
    assert (warning.line, warning.severity, warning.field) == (1, "warning", "")
    assert str(error).startswith(f'f.yaml:7: error: Pod default/web: {GROUP}/bucket: "My": ')
    assert str(warning).startswith("f.yaml:1: warning: Pod default/web: Litestream runs as root")


def test_what_is_about_a_file_names_no_object() -> None:
    assert str(Finding("f.yaml", None, "error", "is away")) == "f.yaml: error: is away"
    assert str(Finding("f.yaml", 3, "error", "is odd")) == "f.yaml:3: error: is odd"


def test_only_a_document_with_something_of_ours_becomes_another_one() -> None:
    (document,) = manifests.read(POD.replace("inject", "injected").replace("bucket", "other").replace(GROUP, "a.b"))
    assert examine("f.yaml", document, "", DEFAULTS, beside([], DEFAULTS), injecting=True).after is document.value
    (document,) = manifests.read(POD.replace("My", "mine"))
    result = examine("f.yaml", document, "shop", DEFAULTS, beside([], DEFAULTS), injecting=True)
    assert result.after["spec"].keys() > {"initContainers"}
