"""The end of a ``sitecustomize`` module that patches modules of rayclip once they are imported."""

PATCH_ON_IMPORT = '''
import sys
from importlib.machinery import PathFinder


class Patching:
    """Patches modules once they are imported."""

    @staticmethod
    def find_spec(name, path, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in PATCHES else None
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                PATCHES[name](module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Patching)
'''
"""Python code that follows ``PATCHES``: name of a module -> what to do with the module."""
