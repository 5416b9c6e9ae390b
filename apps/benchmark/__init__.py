"""Time needle against PyTorch and other libraries on the same work: `python -m apps.benchmark`.

| file | subject |
|---|---|
| `__main__` | the command line |
| `cases` | what is timed, as data |
| `measure` | one process per library: the proof that all compute the same, and turns of timing |
| `worker` | one such process: the work of one library |
| `libraries/` | one adapter per library |
| `report` | the tables |
| `conv_algorithms` | a separate program: compares needle's convolution algorithms |
"""
