"""Fuzzing: damaged and made-up input for everything that reads what others wrote.

``targets/`` has a module for each kind of input, with valid examples to start from, a way to change
them that knows their structure, and the function under test. `session.py` judges single inputs;
``python -m vivace.devkit.fuzz`` runs any number of them, guided by coverage where `atheris` is
installed. Inputs that once broke something lie in ``regressions/``, in the folder of their target.
"""
