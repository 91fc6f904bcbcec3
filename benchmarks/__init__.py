"""The measuring bench: a synthetic archive served by nginx, our sync and other tools against it, one table.

    python -m benchmarks --scale 0.1          see README.md in this folder

archive   a synthetic archive: DICOM files, zips and every answer, written before anything is measured
nginx     serves it as fast as a server can        stub      serves it slowly, or refuses (asyncio)
links     a long link between two namespaces       measure   one client as a process: what it cost, what it brought
clients   who is measured, and their commands      run       the command: rounds, tables, figures
plot      figures as PNG                           throttle  our pace against a server that refuses
micro     what each step costs per object          startup   until a sync's first request
identity, large, scale, verify, year: benches of their own
"""
