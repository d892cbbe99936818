"""The JSON report: `"schema": "soup-report/1"`, what `soup.json` holds and `--json` prints.

Keys may be added within /1, none changes. Paths are as the user gave them, counts are integers, scores fractions of 1.
`report.py` has the top keys, the files beside it the parts that commands fill in.
"""
