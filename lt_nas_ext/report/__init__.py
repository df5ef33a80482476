"""Tables, curves, cell drawings and the page, from run directories alone. Import what you need from its modules:

`page.write_report`, `cells.draw_genotype`, `cells.draw_cell`, `tables.as_markdown`, `runs.read_networks`.
"""
