"""From raw history to a registered champion: data, training sets, models, evaluation."""
