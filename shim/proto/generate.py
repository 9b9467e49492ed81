"""Write `shim/api/*.py` from `shim/proto/ctrd/*.proto`: one class a message, one module a file.

    python -m shim.proto.generate [--check]

Needs grpcio-tools (protoc as a Python package); the shim itself needs neither it nor protobuf. `--check` writes nothing
and fails when the committed modules differ from what would be written.
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Kind  # type: ignore[import-untyped]
from grpc_tools import protoc  # type: ignore[import-untyped]

HERE = Path(__file__).parent
API = HERE.parent / "api"
KINDS = {
    Kind.TYPE_STRING: ("STRING", "str", '""'),
    Kind.TYPE_BYTES: ("BYTES", "bytes", 'b""'),
    Kind.TYPE_UINT32: ("UINT", "int", "0"),
    Kind.TYPE_UINT64: ("UINT", "int", "0"),
    Kind.TYPE_ENUM: ("INT", "int", "0"),
    Kind.TYPE_INT32: ("INT", "int", "0"),
    Kind.TYPE_INT64: ("INT", "int", "0"),
    Kind.TYPE_BOOL: ("BOOL", "bool", "False"),
    Kind.TYPE_DOUBLE: ("DOUBLE", "float", "0.0"),
}
WELL_KNOWN = {"google/protobuf/any.proto": "well_known", "google/protobuf/timestamp.proto": "well_known"}


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Compile the vendored files, with the well-known types they import, into one descriptor set."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("ctrd/*.proto"))
        arguments = [
            "protoc",
            f"-I{HERE}",
            f"-I{well_known}",
            "--include_imports",
            f"--descriptor_set_out={out.name}",
            *sources,
        ]
        if protoc.main(arguments):
            raise SystemExit("protoc failed")
        return descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes())


def module_of(file: str) -> str:
    return WELL_KNOWN.get(file) or Path(file).stem


class Module:
    """The text of one generated module."""

    def __init__(self, source: str, homes: dict[str, str]) -> None:
        self.name = module_of(source)
        self.homes = homes
        self.kinds: set[str] = set()
        self.imports: dict[str, set[str]] = {}
        self.body: list[str] = []

    def enum(self, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        self.body += ["", "", f"class {enum.name}:", f'    """Values of the enumeration {enum.name}."""', ""]
        self.body += [f"    {value.name} = {value.number}" for value in enum.value]

    def message(self, package: str, message: descriptor_pb2.DescriptorProto) -> None:
        entries = {nested.name for nested in message.nested_type if nested.options.map_entry}
        slots, rows, annotations, parameters, assignments = [], [], [], [], []
        for field in sorted(message.field, key=lambda f: f.number):
            repeated = field.label == Kind.LABEL_REPEATED
            extra = ""
            if field.type == Kind.TYPE_MESSAGE:
                name = field.type_name.rpartition(".")[2]
                if name in entries:
                    kind, hint, default, repeated = "STRING_MAP", "dict[str, str]", "None", False
                else:
                    kind, hint, default, extra = "MESSAGE", name, "None", f", message={name}"
                    home = self.homes[field.type_name]
                    if home != self.name:
                        self.imports.setdefault(home, set()).add(name)
            else:
                kind, hint, default = KINDS[field.type]
            self.kinds.add(kind)
            if repeated:
                extra, item = f", repeated=True{extra}", hint
                hint, parameter, value = (
                    f"list[{item}]",
                    f"list[{item}] | None = None",
                    f"[] if {field.name} is None else {field.name}",
                )
            elif kind == "STRING_MAP":
                parameter, value = f"{hint} | None = None", f"{{}} if {field.name} is None else {field.name}"
            elif kind == "MESSAGE":
                hint += " | None"
                parameter, value = f"{hint} = None", field.name
            else:
                parameter, value = f"{hint} = {default}", field.name
            slots.append(f'"{field.name}"')
            rows.append(f'        Field({field.number}, "{field.name}", {kind}{extra}),')
            annotations.append(f"    {field.name}: {hint}")
            parameters.append(f"        {field.name}: {parameter},")
            assignments.append(f"        self.{field.name} = {value}")
        self.body += ["", "", f"class {message.name}(Message):", f'    """{package}.{message.name}"""', ""]
        comma = "," if len(slots) == 1 else ""
        self.body += [f"    __slots__ = ({', '.join(sorted(slots))}{comma})", f'    NAME = "{package}.{message.name}"']
        if not slots:
            return
        self.body += [
            "    FIELDS = (",
            *rows,
            "    )",
            *annotations,
            "",
            "    def __init__(",
            "        self,",
            "        *,",
            *parameters,
            "    ) -> None:",
            *assignments,
        ]

    def text(self, source: str) -> str:
        head = [
            f'"""Generated by `python -m shim.proto.generate` from {source}; do not edit."""',
            "",
            "from __future__ import annotations",
        ]
        imports = [
            f"from shim.api.{home} import {', '.join(sorted(names))}" for home, names in sorted(self.imports.items())
        ]
        if any(line.startswith("class ") and "(Message)" in line for line in self.body):
            names = sorted({*self.kinds}) + (["Field"] if self.kinds else []) + ["Message"]
            imports.append(f"from shim.message import {', '.join(names)}")
        return "\n".join(head + ([""] if imports else []) + imports + self.body) + "\n"


def ordered(file: descriptor_pb2.FileDescriptorProto) -> list[descriptor_pb2.DescriptorProto]:
    """Return a file's messages so that each comes behind those it embeds: the tables name classes."""
    messages = {f".{file.package}.{message.name}": message for message in file.message_type}
    done: dict[str, descriptor_pb2.DescriptorProto] = {}

    def visit(name: str) -> None:
        if name in messages and name not in done:
            for field in messages[name].field:
                visit(field.type_name)
            done[name] = messages[name]

    for name in messages:
        visit(name)
    return list(done.values())


def modules() -> dict[str, str]:
    """Return the text of every generated module by file name."""
    files = descriptors().file
    homes = {f".{file.package}.{message.name}": module_of(file.name) for file in files for message in file.message_type}
    written: dict[str, str] = {}
    for file in files:
        module = Module(file.name, homes)
        for enum in file.enum_type:
            module.enum(enum)
        used = {"Any", "Timestamp"} if module.name == "well_known" else {message.name for message in file.message_type}
        for message in ordered(file):
            if message.name in used:
                module.message(file.package, message)
        if module.name == "well_known" and "well_known.py" in written:
            written["well_known.py"] += "\n".join(module.body) + "\n"
            written["well_known.py"] = written["well_known.py"].replace(
                "import BYTES, STRING,", "import BYTES, INT, STRING,"
            )
        else:
            written[f"{module.name}.py"] = module.text(
                f"shim/proto/{file.name}" if module.name != "well_known" else "protobuf's any and timestamp"
            )
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, text in modules().items():
        path = API / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if check and stale:
        print(f"stale: {', '.join(stale)}; run python -m shim.proto.generate", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
