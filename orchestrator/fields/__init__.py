"""What configs and registered components are made of: sections, types of fields, YAML values."""
