"""The sweep's summary as people read it: terminal tables, figures, one self-contained page.

Everything here is a pure function of the summary's plain JSON: no Ray, no MLflow, no torch.
"""
