"""Layer-wise prediction as a tool: measuring layers, fitting predictors, predicting and choosing networks."""
