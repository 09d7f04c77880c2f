"""Write all pages of docs/ that are generated from the code.

python -m orchestrator.documentation
"""

from orchestrator.documentation.pages import DOCS, PAGES

if __name__ == "__main__":
    for name, page in PAGES.items():
        file = DOCS / name
        text = page()
        state = "unchanged" if file.is_file() and file.read_text() == text else "written"
        file.write_text(text)
        print(f"{file.relative_to(DOCS.parent)}: {state}")
