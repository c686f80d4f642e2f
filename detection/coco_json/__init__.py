"""Files in COCO's JSON form: read, laid out in columns, and the rules for what their records may hold.

Ground truth, predictions and the checks of data sets stand on it.
"""
